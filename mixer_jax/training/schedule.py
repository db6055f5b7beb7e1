"""The learning rate at each step."""

import optax
from ml_collections import ConfigDict


def make_schedule(options: ConfigDict, peak: float, total_steps: int, warmup_steps: int) -> optax.Schedule:
    """Return linear warm-up from 0 to `peak`, then linear, cosine or no decay to `end_learning_rate` at `total_steps`.

    `options` is config.schedule.
    The decay starts where the warm-up ends, as in the code of the paper's time. Its end value there is an absolute 1e-5; later
    big_vision code reads the same setting as a factor of the peak. Ours is absolute, and each config states it.
    """
    end, decay_steps = options.end_learning_rate, max(1, total_steps - warmup_steps)
    decays = {
        "linear": lambda: optax.linear_schedule(peak, end, decay_steps),
        "cosine": lambda: optax.cosine_decay_schedule(peak, decay_steps, alpha=end / peak if peak else 0.0),
        "constant": lambda: optax.constant_schedule(peak),
    }
    decay = decays[options.decay]()
    if warmup_steps == 0:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), decay], [warmup_steps])
