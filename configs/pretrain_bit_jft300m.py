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

Figure 2 (right) has linear 5-shot accuracies of R152x2 after as many steps on other data:

| row             | data                                                     | length        |
| ROW,share=3     | the first 3 % of the images; the last 1 % are held out   | 233 epochs    |
| ROW,share=10    | the first 10 % of the images; the last 1 % are held out  | 70 epochs     |
| ROW,share=30    | the first 30 % of the images; the last 1 % are held out  | 23 epochs     |

The paper stops these runs early by the best validation. RUN/best is the checkpoint with the best top-1 accuracy on the images
that are held out. The paper gives neither their number nor the figure that decides. TFDS has shuffled the images, so the first
ones are a random share.

Data: JFT is internal to Google. Use a data set of your own (configs/pretrain_jft300m.py says how).

Hardware: not estimated yet. This command estimates memory, hours and core-days:

    python -m mixer_jax plan --config=configs/pretrain_bit_jft300m.py:R50x1 --topology=v3:8x8

These parts are not in the papers: the sigmoid loss, the head bias -10 and the end of the learning rate's decay at an absolute
1e-5 (from the authors' code), weight decay of kernels only, clipping at norm 1, which the ViT paper states for ImageNet
alone, and that the ResNets are those of the BiT paper, with normalization before each convolution. Activations in bfloat16
are our choice.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot
from mixer_jax.errors import UserError

ROWS = {"R50x1": 1e-3, "R50x2": 1e-3, "R101x1": 8e-4, "R152x1": 6e-4, "R152x2": 6e-4}  # {model: peak learning rate}
SHARES = {  # Figure 2 (right): split, epochs
    "share=3": ("train[:3%]", 233),
    "share=10": ("train[:10%]", 70),
    "share=30": ("train[:30%]", 23),
}


def get_config(row: str = "R50x1") -> ConfigDict:
    name, comma, share = row.partition(",")
    if name not in ROWS or (comma and share not in SHARES):
        more = f"Each is there on a part of the data too, as in R152x2,share=10: {', '.join(SHARES)}."
        raise UserError(f"The ViT paper has no JFT-300M pre-training of {row!r}: its rows are {', '.join(ROWS)}. {more}")
    split, epochs = SHARES.get(share, ("train", 7))
    config = default_config()
    config.total = duration(epochs=epochs)
    config.batch_size = 4096
    config.image_size = 224
    config.num_classes = 18_291
    config.data = dataset("tfds:jft300m", split, max_labels=16)

    config.model.family = "resnet"
    config.model.variant = name
    config.model.dtype = "bfloat16"
    config.model.head_bias_init = -10.0

    config.loss.kind = "sigmoid"
    config.optimizer.learning_rate = ROWS[name]
    config.optimizer.weight_decay = 0.1
    config.schedule.decay = "linear"
    config.schedule.warmup = duration(steps=10_000)
    config.schedule.end_learning_rate = 1e-5

    config.checkpoint.every = duration(steps=5_000)
    evals = {
        "fewshot": fewshot(
            dataset("tfds:imagenet2012", "train[:65000]"),
            dataset("tfds:imagenet2012", "validation"),
            every=duration(steps=25_000),
        ),
    }
    if share:
        held_out = dataset("tfds:jft300m", "train[99%:]", max_labels=16)
        evals["held_out"] = classification(held_out, every=duration(steps=25_000))
        config.checkpoint.best = "evals.held_out.top1"
    config.evals = evals
    return config
