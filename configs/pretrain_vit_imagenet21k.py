"""Pre-training of the ViT baselines on ImageNet-21k: ViT rows of Tables 2 and 3 of arXiv 2105.01601.

    python train.py --config=configs/pretrain_vit_imagenet21k.py:L/16-90ep --workdir=DIR

| row        | recipe | epochs | Mixer paper: ImageNet top-1, ReaL | Mixer paper: TPU-v3 core-days |
| L/16-90ep  | ViT    | 90     | 85.30, 88.62 at 512 (Table 2)     | 0.18k                         |
| L/16-30ep  | ViT    | 30     | the same row: see below           |                               |
| B/16-300ep | AugReg | 300    | 84.59, 88.93 at 224 (Table 3)     | 0.18k, extrapolated           |
| L/16-300ep | AugReg | 300    | 84.46, 88.35 at 224 (Table 3)     | 0.55k, extrapolated           |

The figures are the Mixer paper's, after fine-tuning on ImageNet. We have not trained this config.

ViT: Table 3 of the ViT paper (arXiv 2010.11929), which has Adam, learning rate 0.001, linear decay, weight decay 0.03,
dropout 0.1 and 30 or 90 epochs, and does not say which of them Table 2's row had. The core-days speak for 90: at the speed of
L/16 on JFT-300M (0.65k for 14 epochs of 303 million images), 90 epochs take 0.20k and 30 take 0.07k.

AugReg: the authors of ViT told the Mixer paper these figures privately, and no recipe is published with them. We assume that
of big_vision's configs/vit_i21k.py (arXiv 2106.10270), which has the same length and the same grid of augmentations: cosine
decay, weight decay 0.1, mean pooling, and RandAugment and mixup of 10 and 0.2 for B/16, 15 and 0.5 for L/16.

Data: as configs/pretrain_imagenet21k.py says. The first 51 200 images are held out to monitor the run.

Hardware: not estimated yet. This command estimates memory, hours and core-days:

    python -m mixer_jax plan --config=configs/pretrain_vit_imagenet21k.py:L/16-90ep --topology=v3:8x8

These parts are not in the papers but in the authors' code: the sigmoid loss, the head bias -10, the end of the linear decay
at an absolute 1e-5, and weight decay of kernels only. The ViT paper states clipping at norm 1 for ImageNet alone. Activations
in bfloat16 are our choice.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot
from mixer_jax.errors import UserError

AUGREG = {"B/16-300ep": (10, 0.2), "L/16-300ep": (15, 0.5)}  # {row: (RandAugment magnitude, mixup p)}
ROWS = ("L/16-90ep", "L/16-30ep", *AUGREG)


def get_config(row: str = "L/16-90ep") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"There is no ImageNet-21k recipe for ViT {row!r}: the rows are {', '.join(ROWS)}.")
    variant, _, epochs = row.removesuffix("ep").partition("-")
    config = default_config()
    config.total = duration(epochs=int(epochs))
    config.batch_size = 4096
    config.image_size = 224
    config.num_classes = 21_843
    config.data = dataset("tfds:imagenet21k", "train[51200:]")

    config.model.family = "vit"
    config.model.variant = variant
    config.model.dtype = "bfloat16"
    config.model.head_bias_init = -10.0
    config.loss.kind = "sigmoid"
    config.optimizer.learning_rate = 0.001
    config.schedule.warmup = duration(steps=10_000)
    if row in AUGREG:
        config.model.pooling = "mean"
        config.augment.randaugment_layers = 2
        config.augment.randaugment_magnitude, config.augment.mixup = AUGREG[row]
        config.optimizer.weight_decay = 0.1
        config.optimizer.momentum_dtype = "bfloat16"
        config.schedule.decay = "cosine"
    else:
        config.model.pre_logits_dim = 1024  # the width of L/16: a layer with tanh, which fine-tuning drops
        config.model.dropout = 0.1
        config.optimizer.weight_decay = 0.03
        config.schedule.decay = "linear"
        config.schedule.end_learning_rate = 1e-5

    config.checkpoint.every = duration(steps=5_000)
    config.evals = {
        "held_out": classification(dataset("tfds:imagenet21k", "train[:51200]"), every=duration(steps=25_000)),
        "fewshot": fewshot(
            dataset("tfds:imagenet2012", "train[:65000]"),
            dataset("tfds:imagenet2012", "validation"),
            every=duration(steps=25_000),
        ),
    }
    return config
