"""Pre-training of the BiT baselines with Adam on JFT-300M or on similar data: rows of Table 3 and Figure 3 of arXiv 2105.01601.

    python train.py --config=configs/pretrain_bit_jft300m.py:R50x1 --workdir=DIR --config.data.source=tfds:YOUR_DATA

The Mixer paper took these models from the ViT paper (arXiv 2010.11929). Epochs, learning rates and weight decay are those of
its Table 3, as are the batch of 4096, the linear decay and the warm-up of 10 000 steps.

| row    | epochs | learning rate | Mixer paper: ImageNet top-1 at 224, ReaL | Mixer paper: TPU-v3 core-days |
| R50x1  | 7      | 0.001         | 73.69, 81.92                             | 0.08k                         |
| R50x2  | 7      | 0.001         | 78.92, 86.06                             | 0.14k                         |
| R101x1 | 7      | 0.0008        | not in the Mixer paper                   | not in the Mixer paper        |
| R152x1 | 7      | 0.0006        | 79.12, 86.12                             | 0.14k                         |
| R152x2 | 7      | 0.0006        | 82.4 (read off Figure 3)                 | 294 (read off Figure 3)       |

The figures are the Mixer paper's, after fine-tuning on ImageNet. We have not trained this config. R152x2 with 14 epochs and
R200x3 are missing because neither paper lists their learning rate. R152x4, whose recipe is another one (momentum SGD), is in
configs/pretrain_bit_sgd.py.

Data: JFT is internal to Google. Use a data set of your own (configs/pretrain_jft300m.py says how).

Hardware: not estimated yet. This command estimates memory, hours and core-days:

    python -m mixer_jax plan --config=configs/pretrain_bit_jft300m.py:R50x1 --topology=v3:8x8

These parts are not in the papers: the sigmoid loss, the head bias -10 and the end of the learning rate's decay at an absolute
1e-5 (from the authors' code), weight decay of kernels only, clipping at norm 1, which the ViT paper states for ImageNet
alone, and that the ResNets are those of the BiT paper, with normalization before each convolution. Activations in bfloat16
are our choice.
"""

from ml_collections import ConfigDict

from mixer_jax.config import dataset, default_config, duration, fewshot
from mixer_jax.errors import UserError

ROWS = {"R50x1": 1e-3, "R50x2": 1e-3, "R101x1": 8e-4, "R152x1": 6e-4, "R152x2": 6e-4}  # {model: peak learning rate}


def get_config(row: str = "R50x1") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"The ViT paper has no JFT-300M pre-training of {row!r}: its rows are {', '.join(ROWS)}.")
    config = default_config()
    config.total = duration(epochs=7)
    config.batch_size = 4096
    config.image_size = 224
    config.num_classes = 18_291
    config.data = dataset("tfds:jft300m", "train", max_labels=16)

    config.model.family = "resnet"
    config.model.variant = row
    config.model.dtype = "bfloat16"
    config.model.head_bias_init = -10.0

    config.loss.kind = "sigmoid"
    config.optimizer.learning_rate = ROWS[row]
    config.optimizer.weight_decay = 0.1
    config.schedule.decay = "linear"
    config.schedule.warmup = duration(steps=10_000)
    config.schedule.end_learning_rate = 1e-5

    config.checkpoint.every = duration(steps=5_000)
    config.evals = {
        "fewshot": fewshot(
            dataset("tfds:imagenet2012", "train[:65000]"),
            dataset("tfds:imagenet2012", "validation"),
            every=duration(steps=25_000),
        ),
    }
    return config
