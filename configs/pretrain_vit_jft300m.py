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

Figure 2 (right) has linear 5-shot accuracies of B/32, L/32 and L/16 after as many steps on other data:

| row             | data                                                     | length        |
| ROW,share=3     | the first 3 % of the images; the last 1 % are held out   | 233 epochs    |
| ROW,share=10    | the first 10 % of the images; the last 1 % are held out  | 70 epochs     |
| ROW,share=30    | the first 30 % of the images; the last 1 % are held out  | 23 epochs     |
| ROW,data=jft3b  | JFT-3B: 3 billion images of about 30 000 classes         | 517 822 steps |

The paper stops these runs early by the best validation. RUN/best is the checkpoint with the best top-1 accuracy on the images
that are held out. The paper gives neither their number nor the figure that decides. TFDS has shuffled the images, so the first
ones are a random share.

Data: JFT is internal to Google. Use a data set of your own (configs/pretrain_jft300m.py says how).

Hardware: not estimated yet. This command estimates memory, hours and core-days:

    python -m mixer_jax plan --config=configs/pretrain_vit_jft300m.py:L/16 --topology=v3:8x8

These parts are not in the papers: the sigmoid loss, the head bias -10 and the end of the learning rate's decay at an absolute
1e-5 (from the authors' code), weight decay of kernels only, and clipping at norm 1, which the ViT paper states for ImageNet
alone. Activations in bfloat16 are our choice.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot
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
        raise UserError(f"The ViT paper has no JFT-300M pre-training of {row!r}: its rows are {', '.join(ROWS)}. {more}")
    epochs, learning_rate = ROWS[name]
    source, split, length = OTHER_DATA.get(other, ("tfds:jft300m", "train", duration(epochs=epochs)))
    config = default_config()
    config.total = length
    config.batch_size = 4096
    config.image_size = 224
    config.num_classes = 30_000 if source == "tfds:jft3b" else 18_291
    config.data = dataset(source, split, max_labels=16)

    config.model.family = "vit"
    config.model.variant = name.removesuffix("-14ep")
    config.model.pre_logits_dim = WIDTHS[name[0]]  # a layer with tanh, which fine-tuning drops
    config.model.dtype = "bfloat16"
    config.model.head_bias_init = -10.0

    config.loss.kind = "sigmoid"
    config.optimizer.learning_rate = learning_rate
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
    if other.startswith("share="):
        held_out = dataset("tfds:jft300m", "train[99%:]", max_labels=16)
        evals["held_out"] = classification(held_out, every=duration(steps=25_000))
        config.checkpoint.best = "evals.held_out.top1"
    config.evals = evals
    return config
