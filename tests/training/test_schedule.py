"""The learning rate at the milestones of a run."""

import numpy as np
import pytest

from mixer_jax.config import default_config
from mixer_jax.training.schedule import make_schedule

PEAK, END = 3e-3, 1e-5
HALF_COSINE = END + (PEAK - END) / 2

# decay, end, warm-up, total steps, {step: learning rate}
MILESTONES = [
    ("linear", END, 100, 1100, {0: 0.0, 1: PEAK / 100, 50: PEAK / 2, 100: PEAK, 600: (PEAK + END) / 2, 1100: END, 2000: END}),
    ("linear", 0.0, 100, 1100, {100: PEAK, 350: PEAK * 3 / 4, 1100: 0.0}),
    ("linear", END, 0, 1000, {0: PEAK, 500: (PEAK + END) / 2, 1000: END}),
    ("cosine", END, 100, 1100, {0: 0.0, 50: PEAK / 2, 100: PEAK, 600: HALF_COSINE, 1100: END, 2000: END}),
    ("cosine", 0.0, 0, 1000, {0: PEAK, 250: PEAK * (2 + 2**0.5) / 4, 500: PEAK / 2, 1000: 0.0}),
    ("constant", 0.0, 100, 1100, {0: 0.0, 50: PEAK / 2, 100: PEAK, 600: PEAK, 1100: PEAK}),
    ("constant", 0.0, 0, 1000, {0: PEAK, 1000: PEAK}),
    ("steps", 0.0, 100, 1000, {0: 0.0, 50: PEAK / 2, 100: PEAK, 299: PEAK, 301: PEAK / 10, 601: PEAK / 100, 901: PEAK / 1000}),
    ("steps", 0.0, 0, 1000, {0: PEAK, 299: PEAK, 301: PEAK / 10, 899: PEAK / 100, 901: PEAK / 1000, 2000: PEAK / 1000}),
    ("linear", END, 10, 10, {5: PEAK / 2, 9: PEAK * 9 / 10}),  # all of it warm-up
]


def schedule_of(decay, end, warmup, total, peak=PEAK):
    config = default_config().schedule
    config.update(decay=decay, end_learning_rate=end, step_shares=(0.3, 0.6, 0.9))
    return make_schedule(config, peak, total, warmup)


@pytest.mark.parametrize(("decay", "end", "warmup", "total", "milestones"), MILESTONES)
def test_the_learning_rate_passes_its_milestones(decay, end, warmup, total, milestones):
    schedule = schedule_of(decay, end, warmup, total)
    for step, expected in milestones.items():
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-4, abs=1e-9), f"step {step}"


@pytest.mark.parametrize("decay", ["linear", "cosine", "steps", "constant"])
def test_the_learning_rate_rises_to_the_peak_and_never_again(decay):
    rates = np.array([float(schedule_of(decay, END, 5, 25)(step)) for step in range(26)])
    assert np.all(np.diff(rates[:6]) > 0)
    assert np.all(np.diff(rates[5:]) <= 1e-9)


@pytest.mark.parametrize("peak", [1e-3, 3e-3])
def test_the_end_is_absolute_whatever_the_peak(peak):
    for decay in ("linear", "cosine"):
        assert float(schedule_of(decay, END, 10, 100, peak)(100)) == pytest.approx(END, rel=1e-3)


def test_a_peak_of_zero_is_a_learning_rate_of_zero():
    for decay in ("linear", "cosine", "steps", "constant"):
        assert float(schedule_of(decay, 0.0, 0, 10, peak=0.0)(5)) == 0.0
