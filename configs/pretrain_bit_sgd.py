"""Pre-training of BiT-R152x4 with momentum SGD: the BiT rows of Table 2 of arXiv 2105.01601, cited from arXiv 1912.11370.

    python train.py --config=configs/pretrain_bit_sgd.py:imagenet21k --workdir=DIR

| row         | epochs | learning rate / 10 after | Mixer paper: ImageNet top-1 | Mixer paper: TPU-v3 core-days |
| imagenet21k | 90     | 30, 60, 80 epochs        | 85.39                       | 0.94k                         |
| jft300m     | 40     | 10, 23, 30, 37 epochs    | 87.54                       | 9.90k                         |

The figures are after fine-tuning at 480 pixels (configs/finetune_bit.py). We have not trained this config. The recipe is that of
the BiT paper: batch 4096, learning rate 0.03 for each 256 images of it, momentum 0.9, a warm-up of 5000 steps, weight decay 1e-4,
inception crops of 224 pixels, flips.

Data: as in configs/pretrain_imagenet21k.py and configs/pretrain_jft300m.py.

Hardware: not estimated yet. `python -m mixer_jax plan` with this config estimates it.

These parts are not in the BiT paper: the sigmoid loss with the head bias -10 and the images of ImageNet-21k that are held out
(from big_vision's code), no clipping, and that only kernels decay. Weight decay here is decoupled. Its 1e-3 has the effect that
1e-4 in the gradient has with a momentum of 0.9. Activations in bfloat16 are our choice.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot
from mixer_jax.errors import UserError

ROWS = {"imagenet21k": (90, (30, 60, 80)), "jft300m": (40, (10, 23, 30, 37))}  # epochs, and those after which the rate falls


def get_config(row: str = "imagenet21k") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"The BiT paper has no pre-training with SGD on {row!r} here: the rows are {', '.join(ROWS)}.")
    epochs, falls = ROWS[row]
    config = default_config()
    config.total = duration(epochs=epochs)
    config.batch_size = 4096
    config.image_size = 224
    if row == "imagenet21k":
        config.num_classes = 21_843
        config.data = dataset("tfds:imagenet21k", "train[51200:]")
    else:
        config.num_classes = 18_291
        config.data = dataset("tfds:jft300m", "train", max_labels=16)

    config.model.family = "resnet"
    config.model.variant = "R152x4"
    config.model.dtype = "bfloat16"
    config.model.head_bias_init = -10.0

    config.loss.kind = "sigmoid"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03 * config.batch_size / 256
    config.optimizer.weight_decay = 1e-3
    config.optimizer.clip_norm = 0.0
    config.schedule.decay = "steps"
    config.schedule.step_shares = tuple(epoch / epochs for epoch in falls)
    config.schedule.warmup = duration(steps=5_000)

    config.checkpoint.every = duration(steps=5_000)
    config.evals = {
        "fewshot": fewshot(
            dataset("tfds:imagenet2012", "train[:65000]"),
            dataset("tfds:imagenet2012", "validation"),
            every=duration(steps=25_000),
        ),
    }
    if row == "imagenet21k":
        config.evals.held_out = classification(dataset("tfds:imagenet21k", "train[:51200]"), every=duration(steps=25_000))
    return config
