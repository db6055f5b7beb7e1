"""Fine-tuning of a pre-trained Mixer: section 3 of arXiv 2105.01601, with the steps of the ViT paper that it refers to.

    python train.py --config=configs/finetune.py:cifar10 --workdir=DIR --config.init_from=WEIGHTS
    python train.py --config=configs/finetune.py:imagenet,448 --workdir=DIR --config.init_from=WEIGHTS

The model is B/16 unless --config.model.variant names another. The recipe has momentum SGD, batch size 512, cosine decay, gradient
clipping at norm 1, no weight decay, and a new head of zeros. For each data set, the paper tries four learning rates (0.003, 0.01,
0.03, 0.06) on a held-out part of the training split and keeps the best one. Here it is 0.03 unless you set
--config.optimizer.learning_rate.

| row      | steps  | warm-up | part that the paper holds out to choose the learning rate |
| imagenet | 20 000 | 500     | 1 %                                                       |
| cifar10  | 10 000 | 500     | 2 %                                                       |
| cifar100 | 10 000 | 500     | 2 %                                                       |
| pets     | 500    | 100     | 10 %                                                      |
| flowers  | 500    | 100     | 10 %                                                      |

A row by itself trains at 224 pixels and evaluates as in Table 3: the shorter side is resized to 256 pixels, and the central 224 x
224 are cropped (supplement C, variant ii). ROW,448 trains at 448 pixels and evaluates as in Table 2: both sides are resized to
512 pixels, and the central 448 x 448 are cropped (variant i; the paper does not state the 512). Table 3 uses variant ii at 448
pixels, too: set --config.evals.test.resize=small (L/16 from ImageNet-21k has 84.15 in Table 2 and 83.91 in Table 3). Name 448 in
the row, because --config.image_size=448 alone keeps variant ii.

At 448 pixels, token mixing starts as that of 2 x 2 tiles of 224 pixels (supplement C). At a size that is not a multiple of 224,
which the paper does not cover, token mixing is interpolated.

The paper's baselines are fine-tuned alike, at the sizes of their own papers, for example with --config.model.family=vit
--config.model.variant=L/16 --config.image_size=512. `python -m mixer_jax reproduce table3 --json` prints the flags of each row.

Expected metrics: for ImageNet, the paper's Table 3. For the other data sets, the paper states only the mean over all five
("Avg 5"). We have not run this config at full size.

These parts are not in the paper but in its authors' code: the lengths of the warm-up, the softmax loss, momentum 0.9 stored in
bfloat16, and the training crop. Of the crop, the paper says only that inception crops did not help. Here, the shorter side is
resized to 8/7 of the image size, a random square of the image size is cropped, and the square is flipped at random, which is the
default of big_vision's configs/transfer.py. With --config.augment.resize=square, both sides are resized first, as in BiT. The
crop of vision_transformer's code is --config.augment.crop=inception --config.augment.resize=square. Activations in bfloat16 are
our choice. The authors' Mixer code uses float32: --config.model.dtype=float32.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration
from mixer_jax.errors import UserError

ROWS = {  # source, training split, test split, classes, steps, warm-up steps
    "imagenet": ("tfds:imagenet2012", "train", "validation", 1000, 20_000, 500),
    "cifar10": ("tfds:cifar10", "train", "test", 10, 10_000, 500),
    "cifar100": ("tfds:cifar100", "train", "test", 100, 10_000, 500),
    "pets": ("tfds:oxford_iiit_pet", "train", "test", 37, 500, 100),
    "flowers": ("tfds:oxford_flowers102", "train+validation", "test", 102, 500, 100),
}
EVAL_RESIZE = {"224": "small", "448": "square"}  # {pixels: resize}: variants (ii) and (i) of supplement C, of Tables 3 and 2


def get_config(row: str = "cifar10") -> ConfigDict:
    name, _, pixels = row.partition(",")
    pixels = pixels or "224"
    if name not in ROWS or pixels not in EVAL_RESIZE:
        rows = f"the rows are {', '.join(ROWS)}, each also at 448 pixels, as in imagenet,448"
        raise UserError(f"There is no fine-tuning recipe for {row!r}: {rows}.")
    source, train_split, test_split, num_classes, steps, warmup_steps = ROWS[name]
    config = default_config()
    config.total = duration(steps=steps)
    config.batch_size = 512
    config.image_size = int(pixels)
    config.num_classes = num_classes
    config.data = dataset(source, train_split)

    config.model.variant = "B/16"
    config.model.tile_size = 224  # the resolution of pre-training
    config.model.dtype = "bfloat16"

    config.augment.crop = "random"
    config.augment.resize = "small"
    config.loss.kind = "softmax"
    config.optimizer.name = "sgd"
    config.optimizer.momentum_dtype = "bfloat16"
    config.optimizer.learning_rate = 0.03
    config.schedule.decay = "cosine"
    config.schedule.warmup = duration(steps=warmup_steps)

    config.checkpoint.every = duration(steps=1_000)
    test = dataset(source, test_split)
    config.evals = {"test": classification(test, every=duration(steps=1_000), resize=EVAL_RESIZE[pixels])}
    return config
