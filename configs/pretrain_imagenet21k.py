"""Pre-training on ImageNet-21k with extra regularization: Table 4, rows "ImageNet-21k", of arXiv 2105.01601.

    python train.py --config=configs/pretrain_imagenet21k.py:B/16 --workdir=DIR

Data: 14 197 122 images of 21 843 classes, as `tfds:imagenet21k`, which is not in TFDS's public catalog. The releases that
image-net.org hands out (docs/data.md) have other numbers of classes. For one of them, add

    --config.data.source=records:DIR --config.evals.held_out.data.source=records:DIR --config.num_classes=NUMBER

The first 51 200 images are held out to monitor the run, as in big_vision's vit_i21k.py. 300 epochs are about 1.04 million steps.

| row  | RandAugment m | mixup p | paper: ImageNet top-1 at 224, ReaL (Table 3) | paper: TPU-v3 core-days |
| B/16 | 10            | 0.2     | 80.64, 85.80                                 | 0.15k, extrapolated     |
| L/16 | 20            | 0.5     | 82.89, 87.54 (84.15 at 448, Table 2)         | 0.41k, extrapolated     |

The figures are the paper's, after fine-tuning on ImageNet (configs/finetune.py:imagenet). We have not trained this config.

Hardware: every row fits on 64 chips of TPU v3, with 32 images per core. docs/planning.md lists the estimated hours.

    python -m mixer_jax plan --config=configs/pretrain_imagenet21k.py:B/16 --topology=v3:8x8

These parts are not in the paper but in the authors' code for related models: the sigmoid loss, the head bias -10, the end of the
learning rate's decay at an absolute 1e-5 (code of 2021), weight decay of kernels only, stochastic depth with one rate per block
and without rescaling, and the operations of RandAugment (mixer_jax/data/images/randaugment.py). Activations in bfloat16 are our
choice. The authors' Mixer code uses float32.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot
from mixer_jax.errors import UserError

ROWS = {  # Table 4: RandAugment magnitude, mixup p
    "B/16": (10, 0.2),
    "L/16": (20, 0.5),
}


def get_config(row: str = "B/16") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"The paper has no ImageNet-21k pre-training of {row!r}: its rows are {', '.join(ROWS)}.")
    magnitude, mixup = ROWS[row]
    config = default_config()
    config.total = duration(epochs=300)
    config.batch_size = 4096
    config.image_size = 224
    config.num_classes = 21_843
    config.data = dataset("tfds:imagenet21k", "train[51200:]")

    config.model.variant = row
    config.model.dtype = "bfloat16"
    config.model.stoch_depth = 0.1
    config.model.dropout = 0.0
    config.model.head_bias_init = -10.0

    config.augment.randaugment_layers = 2
    config.augment.randaugment_magnitude = magnitude
    config.augment.mixup = mixup
    config.loss.kind = "sigmoid"
    config.optimizer.learning_rate = 0.001
    config.optimizer.weight_decay = 0.1
    config.schedule.decay = "linear"
    config.schedule.warmup = duration(steps=10_000)
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
