"""The demo's pre-training: a small Mixer learns to name letters and digits drawn from fonts (data/sources/glyphs.py).

    python train.py --config=configs/demo/pretrain.py --workdir=DIR

It stands for the pre-training of Table 4 of arXiv 2105.01601, at a size for two CPU cores, on which it takes about two minutes.
Expected metrics: those that `make demo` prints. docs/getting_started.md shows which figures it printed on which machine. The
model's proportions (D_S = C/2, D_C = 4C), Adam, clipping at norm 1, warm-up and linear decay are the paper's. Everything else is
our choice.
"""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot


def get_config() -> ConfigDict:
    config = default_config()
    config.total = duration(steps=1800)
    config.batch_size = 128
    config.image_size = 20
    config.num_classes = 53
    config.data = dataset("glyphs", "train", num_examples=1_000_000)
    config.loader.workers = 2
    config.loader.processes = False

    config.model.variant = "S/4"
    config.model.num_blocks = 4
    config.model.hidden_dim = 64
    config.model.tokens_mlp_dim = 32
    config.model.channels_mlp_dim = 256

    config.augment.crop = "resize"
    config.augment.flip = False
    config.loss.kind = "softmax"
    config.optimizer.learning_rate = 0.004
    config.optimizer.b2 = 0.99
    config.optimizer.weight_decay = 0.1
    config.schedule.warmup = duration(steps=100)
    config.schedule.end_learning_rate = 4e-5

    config.checkpoint.every = duration(steps=300)
    config.log_every_steps = 20
    config.evals = {
        "validation": classification(
            dataset("glyphs", "validation", num_examples=2_000), every=duration(steps=300), resize="square", resize_size=20
        ),
        "fewshot": fewshot(dataset("digits", "train"), dataset("digits", "test"), resize_size=20),
    }
    return config
