"""Training a Mixer from scratch on small images, such as CIFAR's. The recipe is ours: the paper pre-trains only at 224 pixels.

    python train.py --config=configs/small_images.py:32 --workdir=DIR
    python train.py --config=configs/small_images.py:64 --workdir=DIR --config.data.source=folder:photos

Data: CIFAR-10 as `tfds:cifar10`, unless you name another source, such as `records:DIR` (docs/data.md). The number of classes and
the test set then follow from the source. Images of other sizes are resized.

| row | model | patches | parameters, 10 classes |
| 32  | S/4   | 8 x 8   | 17 M                   |
| 48  | S/6   | 8 x 8   | 17 M                   |
| 64  | S/8   | 8 x 8   | 17 M                   |

Hardware: the recipe is meant for a single GPU or TPU core, but we have not measured it there. Two CPU cores are too slow for a
model of this size. Choose fewer blocks and channels for them, as configs/demo does. This command times a step:
`python -m mixer_jax bench step --config=configs/small_images.py`.

Expected metric: we have not measured it on CIFAR, and nothing here was tuned. Mixup, stochastic depth, weight decay, the layers
of RandAugment, Adam and its learning rate are those of Table 4 of arXiv 2105.01601 for ImageNet. Batch size, length, cosine
decay, warm-up, the softmax loss, and the crop (a square of 8/9 of the side) are ours. So is the magnitude of RandAugment, which
is lower because small images tolerate less.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration
from mixer_jax.errors import UserError

ROWS = {"32": "S/4", "48": "S/6", "64": "S/8"}  # {pixels: model}; each model has 64 patches


def get_config(pixels: str = "32") -> ConfigDict:
    if pixels not in ROWS:
        raise UserError(f"There is no recipe for images of {pixels!r} pixels: the rows are {', '.join(ROWS)}.")
    config = default_config()
    config.total = duration(epochs=200)
    config.batch_size = 512
    config.image_size = int(pixels)
    config.num_classes = 10
    config.data = dataset("tfds:cifar10", "train")

    config.model.variant = ROWS[pixels]
    config.model.dtype = "bfloat16"
    config.model.stoch_depth = 0.1

    config.augment.crop = "random"
    config.augment.resize_size = int(pixels) * 9 // 8
    config.augment.randaugment_layers = 2
    config.augment.randaugment_magnitude = 10
    config.augment.mixup = 0.5
    config.loss.kind = "softmax"
    config.optimizer.learning_rate = 0.001
    config.optimizer.weight_decay = 0.1
    config.schedule.decay = "cosine"
    config.schedule.warmup = duration(epochs=5)

    config.checkpoint.every = duration(epochs=5)
    config.evals = {"test": classification(dataset("tfds:cifar10", "test"), every=duration(epochs=5), resize="whole")}
    return config
