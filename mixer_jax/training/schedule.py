"""The learning rate at each step."""

import optax
from ml_collections import ConfigDict


def make_schedule(options: ConfigDict, peak: float, total_steps: int, warmup_steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the step.

    It rises linearly from 0 to `peak` in `warmup_steps`. From there it falls to `end_learning_rate` at `total_steps`, linearly or
    as a cosine, or it falls to a tenth after each of `step_shares` of `total_steps`, or it stays constant.

    The paper does not say where the decay starts and ends. In the code of its time (2021) it starts at the end of the warm-up and
    ends at 1e-5. Later code of big_vision reads the same setting as a factor of the peak. Here `end_learning_rate` is the
    learning rate itself, and each config states it.

    Args:
      options: config.schedule.
      peak: the learning rate at the end of the warm-up.
      total_steps: the length of the run.
      warmup_steps: the length of the warm-up. 0: the run starts at `peak`.
    """
    end, decay_steps = options.end_learning_rate, max(1, total_steps - warmup_steps)
    decays = {
        "linear": lambda: optax.linear_schedule(peak, end, decay_steps),
        "cosine": lambda: optax.cosine_decay_schedule(peak, decay_steps, alpha=end / peak if peak else 0.0),
        "steps": lambda: optax.piecewise_constant_schedule(
            peak, {max(0, round(share * total_steps) - warmup_steps): 0.1 for share in options.step_shares}
        ),
        "constant": lambda: optax.constant_schedule(peak),
    }
    decay = decays[options.decay]()
    if warmup_steps == 0:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), decay], [warmup_steps])
