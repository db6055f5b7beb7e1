"""Pre-training of the ViT baselines on JFT-300M or on similar data: the ViT rows of Table 3 and Figure 3 of arXiv 2105.01601.

    python train.py --config=configs/pretrain_vit_jft300m.py:L/16-14ep --workdir=DIR --config.data.source=tfds:YOUR_DATA

The Mixer paper took these models from the ViT paper (arXiv 2010.11929). Epochs, learning rates and weight decay are those of
its Table 3, as are the batch of 4096, the linear decay and the warm-up of 10 000 steps. It has no dropout on this data.

| row       | epochs | learning rate | Mixer paper: ImageNet top-1 at 224, ReaL | Mixer paper: TPU-v3 core-days |
| B/32      | 7      | 0.0008        | 77.4 (read off Figure 3)                 | 44 (read off Figure 3)        |
| B/16      | 7      | 0.0008        | 82.3 (read off Figure 3)                 | 106 (read off Figure 3)       |
| L/32      | 7      | 0.0006        | 81.7 (read off Figure 3)                 | 133 (read off Figure 3)       |
| L/16      | 7      | 0.0004        | 84.8 (read off Figure 3)                 | 331 (read off Figure 3)       |
| L/16-14ep | 14     | 0.0004        | 85.63, 89.16                             | 0.65k                         |
| H/14      | 14     | 0.0003        | 86.65, 89.56                             | 2.30k                         |

The figures are the Mixer paper's, after fine-tuning on ImageNet. We have not trained this config. Neither paper gives a
recipe for the ViT-S of Figure 3.

Data: JFT is internal to Google. Use a data set of your own (configs/pretrain_jft300m.py says how).

Hardware: not estimated yet. This command estimates memory, hours and core-days:

    python -m mixer_jax plan --config=configs/pretrain_vit_jft300m.py:L/16 --topology=v3:8x8

These parts are not in the papers: the sigmoid loss, the head bias -10 and the end of the learning rate's decay at an absolute
1e-5 (from the authors' code), weight decay of kernels only, and clipping at norm 1, which the ViT paper states for ImageNet
alone. Activations in bfloat16 are our choice.
"""

from ml_collections import ConfigDict

from mixer_jax.config import dataset, default_config, duration, fewshot
from mixer_jax.errors import UserError

ROWS = {  # Table 3 of arXiv 2010.11929: epochs, peak learning rate
    "B/32": (7, 8e-4),
    "B/16": (7, 8e-4),
    "L/32": (7, 6e-4),
    "L/16": (7, 4e-4),
    "L/16-14ep": (14, 4e-4),
    "H/14": (14, 3e-4),
}
WIDTHS = {"B": 768, "L": 1024, "H": 1280}


def get_config(row: str = "B/16") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"The ViT paper has no JFT-300M pre-training of {row!r}: its rows are {', '.join(ROWS)}.")
    epochs, learning_rate = ROWS[row]
    config = default_config()
    config.total = duration(epochs=epochs)
    config.batch_size = 4096
    config.image_size = 224
    config.num_classes = 18_291
    config.data = dataset("tfds:jft300m", "train", max_labels=16)

    config.model.family = "vit"
    config.model.variant = row.removesuffix("-14ep")
    config.model.pre_logits_dim = WIDTHS[row[0]]  # a layer with tanh, which fine-tuning drops
    config.model.dtype = "bfloat16"
    config.model.head_bias_init = -10.0

    config.loss.kind = "sigmoid"
    config.optimizer.learning_rate = learning_rate
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
