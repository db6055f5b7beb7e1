"""Fine-tuning of a pre-trained Mixer on a task of VTAB-1k: section 3 of arXiv 2105.01601, Table 2, column "VTAB-1k".

    python train.py --config=configs/finetune_vtab.py:pets --workdir=DIR --config.init_from=WEIGHTS

The paper's figure is the mean top-1 over the 19 tasks (arXiv 1910.04867), each with 1000 training images: 74.95 for L/16
pre-trained on ImageNet-21k, and 75.33 for H/14 pre-trained on JFT-300M. The paper states no figure for a single task. We have not
run this config at full size.

The paper states 224 pixels for data sets of small images and 448 pixels for the others, and the learning rates 0.003, 0.01 and
0.03. Everything else is as in its other fine-tuning (configs/finetune.py). Choose the learning rate on the 200 images that the
benchmark reserves for this:

    --config.data.split=train800 --config.evals.test.data.split=val200 --config.optimizer.learning_rate=0.003

These parts are not in the paper. The 2500 steps are those of the ViT paper, which it refers to. Three rules are BiT's, which it
also refers to: the warm-up of 100 steps, the tasks that count as small (images below 96 x 96), and the augmentation. The
augmentation resizes the image to 8/7 of the image size, crops a random square, and flips it at random. There is no crop in tasks
about the position or the distance of objects, and no flip where it would change the label. Evaluation sees the whole image,
resized to the square that the model takes. Softmax loss and momentum 0.9 stored in bfloat16 are from the authors' fine-tuning
code. Activations in bfloat16 are our choice. The authors' Mixer code uses float32.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration
from mixer_jax.errors import UserError

ROWS = {  # classes, pixels, random crops, flips
    "caltech101": (102, 448, True, True),
    "cifar100": (100, 224, True, True),
    "dtd": (47, 448, True, True),
    "flowers": (102, 448, True, True),
    "pets": (37, 448, True, True),
    "sun397": (397, 448, True, True),
    "svhn": (10, 224, True, True),
    "patch_camelyon": (2, 448, True, True),
    "eurosat": (10, 224, True, True),
    "resisc45": (45, 448, True, True),
    "retinopathy": (5, 448, True, True),
    "clevr_count": (8, 448, False, True),
    "clevr_distance": (6, 448, False, True),
    "dmlab": (6, 448, False, True),
    "kitti_distance": (4, 448, False, True),
    "dsprites_location": (16, 224, False, False),
    "dsprites_orientation": (16, 224, True, False),
    "smallnorb_azimuth": (18, 448, True, False),
    "smallnorb_elevation": (9, 448, True, True),
}


def get_config(row: str = "pets") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"VTAB has no task {row!r}: the rows are {', '.join(ROWS)}.")
    num_classes, image_size, crops, flips = ROWS[row]
    config = default_config()
    config.total = duration(steps=2_500)
    config.batch_size = 512
    config.image_size = image_size
    config.num_classes = num_classes
    config.data = dataset(f"vtab:{row}", "train800val200")

    config.model.variant = "B/16"
    config.model.tile_size = 224  # the resolution of pre-training
    config.model.dtype = "bfloat16"

    config.augment.crop = "random" if crops else "resize"
    config.augment.flip = flips
    config.loss.kind = "softmax"
    config.optimizer.name = "sgd"
    config.optimizer.momentum_dtype = "bfloat16"
    config.optimizer.learning_rate = 0.01
    config.schedule.decay = "cosine"
    config.schedule.warmup = duration(steps=100)

    config.checkpoint.every = duration(steps=500)
    config.evals = {"test": classification(dataset(f"vtab:{row}", "test"), resize="whole")}
    return config
