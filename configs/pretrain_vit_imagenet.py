"""Pre-training of the ViT baselines on ImageNet with extra regularization: ViT rows of Table 3 of arXiv 2105.01601.

    python train.py --config=configs/pretrain_vit_imagenet.py:B/16 --workdir=DIR

| row  | Mixer paper: ImageNet top-1 at 224, ReaL (Table 3) | Mixer paper: TPU-v3 core-days |
| B/16 | 79.67, 84.97                                       | 0.02k, extrapolated           |
| L/16 | 76.11, 80.93                                       | 0.05k, extrapolated           |

The figures are the Mixer paper's, after fine-tuning on ImageNet. We have not trained this config.

The authors of ViT told the Mixer paper these figures privately, and no recipe is published with them. We assume that of
big_vision's configs/vit_i1k.py (arXiv 2106.10270), which has the same 300 epochs and the same grid of augmentations: Adam
with its first moment in bfloat16, learning rate 0.001, cosine decay after a warm-up of 10 000 steps, weight decay 0.1 of
kernels, softmax loss, RandAugment of magnitude 15, and mixup with p = 0.5. It holds out the last 1 % of the images. Here all
1 281 167 are used, as in configs/pretrain_imagenet.py. Activations in bfloat16 are our choice.

Data: `tfds:imagenet2012`, prepared as ArrayRecord.

Hardware: not estimated yet. This command estimates memory, hours and core-days:

    python -m mixer_jax plan --config=configs/pretrain_vit_imagenet.py:B/16 --topology=v3:8x8
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot
from mixer_jax.errors import UserError

ROWS = {"B/16": 768, "L/16": 1024}  # {model: its width}


def get_config(row: str = "B/16") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"There is no ImageNet recipe for ViT {row!r}: the rows are {', '.join(ROWS)}.")
    config = default_config()
    config.total = duration(epochs=300)
    config.batch_size = 4096
    config.image_size = 224
    config.num_classes = 1000
    config.data = dataset("tfds:imagenet2012", "train")

    config.model.family = "vit"
    config.model.variant = row
    config.model.pre_logits_dim = ROWS[row]  # a layer with tanh, which fine-tuning drops
    config.model.dtype = "bfloat16"

    config.augment.randaugment_layers = 2
    config.augment.randaugment_magnitude = 15
    config.augment.mixup = 0.5
    config.loss.kind = "softmax"
    config.optimizer.learning_rate = 0.001
    config.optimizer.weight_decay = 0.1
    config.optimizer.momentum_dtype = "bfloat16"
    config.schedule.decay = "cosine"
    config.schedule.warmup = duration(steps=10_000)

    validation = dataset("tfds:imagenet2012", "validation")
    config.checkpoint.every = duration(steps=2_500)
    config.evals = {
        "validation": classification(validation, every=duration(epochs=10)),
        "fewshot": fewshot(dataset("tfds:imagenet2012", "train[:65000]"), validation, every=duration(steps=25_000)),
    }
    return config
