from mixer_jax.config import classification, dataset, default_config, duration, fewshot


def get_config():
    config = default_config()
    config.total = duration(steps=100)
    config.batch_size = 64
    config.image_size = 32
    config.num_classes = 10
    config.model.variant = "S/4"
    config.model.hidden_dim = 64
    config.model.num_blocks = 4
    config.model.tokens_mlp_dim = 32
    config.model.channels_mlp_dim = 256
    config.data = dataset("digits", "train")
    config.loss.kind = "softmax"
    config.augment.flip = False
    config.augment.crop_min_area = 0.6
    config.checkpoint.every.steps = 20
    config.log_every_steps = 10
    config.evals = {
        "test": classification(dataset("digits", "test"), every=duration(steps=50), resize_size=32),
        "few": fewshot(dataset("digits", "train"), dataset("digits", "test"), resize_size=32),
    }
    return config
