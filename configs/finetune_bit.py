"""Fine-tuning of BiT by the BiT-HyperRule (arXiv 1912.11370): the BiT rows of Table 2 of arXiv 2105.01601, which cites them.

    python train.py --config=configs/finetune_bit.py:cifar10 --workdir=DIR --config.init_from=WEIGHTS

The rule sets everything by the size of the training split and of the images, and tries no learning rates:

| row      | steps  | warm-up | learning rate / 10 after | mixup |
| imagenet | 20 000 | 500     | 6 000, 12 000, 18 000    | 0.1   |
| cifar10  | 10 000 | 500     | 3 000, 6 000, 9 000      | 0.1   |
| cifar100 | 10 000 | 500     | 3 000, 6 000, 9 000      | 0.1   |
| pets     | 500    | 100     | 200, 300, 400            | none  |
| flowers  | 500    | 100     | 200, 300, 400            | none  |

All rows: momentum SGD 0.9 without weight decay, batch size 512, learning rate 0.003. Images above 96 x 96 pixels are resized to
512 x 512 and cut to 480 x 480. CIFAR's are resized to 160 x 160 and cut to 128 x 128. They are flipped at random. At test, the
whole image is resized to the size of the cut.

Expected metrics: for R152x4, the paper's Table 2: ImageNet 85.39 after ImageNet-21k, and 87.54 after JFT-300M. We have not run
this config.

The steps at which the learning rate falls, the warm-up, the sizes for R152x4 and the softmax loss are those of the authors' code
(big_transfer). These parts are ours: no clipping, a new head of zeros, and activations in bfloat16.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration
from mixer_jax.errors import UserError

ROWS = {  # source, training split, test split, classes, steps, warm-up steps, whether images are small
    "imagenet": ("tfds:imagenet2012", "train", "validation", 1000, 20_000, 500, False),
    "cifar10": ("tfds:cifar10", "train", "test", 10, 10_000, 500, True),
    "cifar100": ("tfds:cifar100", "train", "test", 100, 10_000, 500, True),
    "pets": ("tfds:oxford_iiit_pet", "train", "test", 37, 500, 100, False),
    "flowers": ("tfds:oxford_flowers102", "train+validation", "test", 102, 500, 100, False),
}


def get_config(row: str = "cifar10") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"There is no BiT-HyperRule for {row!r}: the rows are {', '.join(ROWS)}.")
    source, train_split, test_split, num_classes, steps, warmup_steps, is_small = ROWS[row]
    config = default_config()
    config.total = duration(steps=steps)
    config.batch_size = 512
    config.image_size = 128 if is_small else 480
    config.num_classes = num_classes
    config.data = dataset(source, train_split)

    config.model.family = "resnet"
    config.model.variant = "R152x4"
    config.model.dtype = "bfloat16"

    config.augment.crop = "random"
    config.augment.resize = "square"
    config.augment.resize_size = 160 if is_small else 512
    config.augment.mixup = 0.1 if steps > 500 else 0.0
    config.loss.kind = "softmax"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.003
    config.optimizer.clip_norm = 0.0
    config.schedule.decay = "steps"
    config.schedule.step_shares = (0.3, 0.6, 0.9) if steps > 500 else (0.4, 0.6, 0.8)
    config.schedule.warmup = duration(steps=warmup_steps)

    config.checkpoint.every = duration(steps=1_000)
    config.evals = {"test": classification(dataset(source, test_split), every=duration(steps=1_000), resize="whole")}
    return config
