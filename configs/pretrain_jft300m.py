"""Pre-training on JFT-300M or on similar data: Table 4, rows "JFT-300M", of arXiv 2105.01601.

    python train.py --config=configs/pretrain_jft300m.py:L/16 --workdir=DIR --config.data.source=tfds:YOUR_DATA

Data: JFT is internal to Google. Use a data set of your own that TFDS prepared as ArrayRecord, with a feature "labels" (a set of
classes per image) or "label" (one class), and set --config.num_classes. JFT has 18 291 classes and 1.26 labels per image. The
augmentation is an inception crop and a flip. There is no other regularization than weight decay.

| row       | epochs | learning rate | paper: ImageNet top-1 at 224, ReaL (Table 3) | paper: TPU-v3 core-days |
| S/32      | 5      | 0.003         | 68.70, 75.83                                 | 0.01k                   |
| S/16      | 5      | 0.003         | 73.83, 80.60                                 | 0.03k                   |
| B/32      | 7      | 0.003         | 75.53, 81.94                                 | 0.05k                   |
| B/16      | 7      | 0.003         | 80.00, 85.56                                 | 0.08k                   |
| L/32      | 7      | 0.001         | 80.67, 85.62                                 | 0.12k                   |
| L/16      | 7      | 0.001         | 84.05, 88.14                                 | 0.23k                   |
| L/16-14ep | 14     | 0.001         | 84.82, 88.48                                 | 0.45k                   |
| H/14      | 14     | 0.001         | 86.32, 89.14                                 | 1.01k                   |

The figures are the paper's, after fine-tuning on ImageNet. We have not trained this config.

Figure 2 (right) has linear 5-shot accuracies of B/32, L/32 and L/16 after as many steps on other data:

| row             | data                                                     | length        |
| ROW,share=3     | the first 3 % of the images; the last 1 % are held out   | 233 epochs    |
| ROW,share=10    | the first 10 % of the images; the last 1 % are held out  | 70 epochs     |
| ROW,share=30    | the first 30 % of the images; the last 1 % are held out  | 23 epochs     |
| ROW,data=jft3b  | JFT-3B: 3 billion images of about 30 000 classes         | 517 822 steps |

The paper stops these runs early by the best validation. RUN/best is the checkpoint with the best top-1 accuracy on the images
that are held out. The paper gives neither their number nor the figure that decides. TFDS has shuffled the images, so the first
ones are a random share.

Hardware: every row fits on 64 chips of TPU v3, with 32 images per core. docs/planning.md lists the estimated hours.

    python -m mixer_jax plan --config=configs/pretrain_jft300m.py:L/16 --topology=v3:8x8

These parts are not in the paper: the sigmoid loss and the head bias -10 (from the authors' code for related models), the end of
the learning rate's decay at an absolute 1e-5 (from their code of 2021), and weight decay of kernels only. Activations in bfloat16
are our choice. The authors' Mixer code uses float32.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot
from mixer_jax.errors import UserError

ROWS = {  # Table 4 and Table 3: epochs, peak learning rate
    "S/32": (5, 0.003),
    "S/16": (5, 0.003),
    "B/32": (7, 0.003),
    "B/16": (7, 0.003),
    "L/32": (7, 0.001),
    "L/16": (7, 0.001),
    "L/16-14ep": (14, 0.001),
    "H/14": (14, 0.001),
}
OTHER_DATA = {  # Figure 2 (right), for rows of 7 epochs: source, split, length
    "share=3": ("tfds:jft300m", "train[:3%]", duration(epochs=233)),
    "share=10": ("tfds:jft300m", "train[:10%]", duration(epochs=70)),
    "share=30": ("tfds:jft300m", "train[:30%]", duration(epochs=23)),
    "data=jft3b": ("tfds:jft3b", "train", duration(steps=517_822)),  # as many as 7 epochs of JFT-300M
}


def get_config(row: str = "B/16") -> ConfigDict:
    name, comma, other = row.partition(",")
    if name not in ROWS or (comma and (ROWS[name][0] != 7 or other not in OTHER_DATA)):
        more = f"Each one of 7 epochs is there on other data too, as in L/16,share=10: {', '.join(OTHER_DATA)}."
        raise UserError(f"The paper has no JFT-300M pre-training of {row!r}: its rows are {', '.join(ROWS)}. {more}")
    epochs, learning_rate = ROWS[name]
    source, split, length = OTHER_DATA.get(other, ("tfds:jft300m", "train", duration(epochs=epochs)))
    config = default_config()
    config.total = length
    config.batch_size = 4096
    config.image_size = 224
    config.num_classes = 30_000 if source == "tfds:jft3b" else 18_291
    config.data = dataset(source, split, max_labels=16)

    config.model.variant = name.removesuffix("-14ep")
    config.model.dtype = "bfloat16"
    config.model.head_bias_init = -10.0

    config.loss.kind = "sigmoid"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = 0.03
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
    if other.startswith("share="):
        held_out = dataset("tfds:jft300m", "train[99%:]", max_labels=16)
        evals["held_out"] = classification(held_out, every=duration(steps=25_000))
        config.checkpoint.best = "evals.held_out.top1"
    config.evals = evals
    return config
