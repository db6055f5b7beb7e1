"""The smallest run that has everything: a two-block Mixer on 8 x 8 digits, dropout, mixup, crops, evaluations, checkpoints."""

from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot


def get_config() -> ConfigDict:
    config = default_config()
    config.total = duration(steps=30)
    config.batch_size = 16
    config.image_size = 8
    config.num_classes = 10
    config.data = dataset("digits", "train")
    config.loader.workers = 2
    config.loader.processes = False
    config.loader.prefetch = 64

    config.model.variant = "S/2"
    config.model.num_blocks = 2
    config.model.hidden_dim = 16
    config.model.tokens_mlp_dim = 8
    config.model.channels_mlp_dim = 32
    config.model.dropout = 0.1
    config.model.stoch_depth = 0.1

    config.augment.flip = False
    config.augment.crop_min_area = 0.5
    config.augment.mixup = 0.2
    config.loss.kind = "softmax"
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 0.1
    config.schedule.warmup = duration(steps=3)
    config.ema_decay = 0.9

    config.checkpoint.every = duration(steps=5)
    config.log_every_steps = 2
    test = dataset("digits", "test")
    config.evals = {
        "test": classification(test, every=duration(steps=10), resize_size=8),
        "fewshot": fewshot(dataset("digits", "train"), test, resize_size=8, shots=(1, 5), seeds=(0, 1)),
    }
    return config


def loader_config(**options) -> ConfigDict:
    """Two threads that decode, but for these `options`."""
    loader = get_config().loader
    loader.update(options)
    return loader
