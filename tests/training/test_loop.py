"""The order of things around the step: what is saved, evaluated and logged when, and what never reaches the disk."""

import contextlib
import os
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.parallel import make_mesh
from mixer_jax.stopwatch import Stopwatch
from mixer_jax.training.loop import DivergedError, Milestones, Rate, train
from mixer_jax.training.preemption import Stopped, StopRequest
from mixer_jax.training.profiling import Profiler
from mixer_jax.training.unreadable_share import TooManyUnreadableError, UnreadableShare


class Log(list):
    """Everything that happens, in order; stands for the metrics too."""

    def __init__(self):
        self.substituted = []

    def write(self, step, values):
        self.substituted.append(values["substituted"])
        self.append(("metrics", step, values["loss"]))


def run(
    milestones: Milestones,
    *,
    first_step: int = 0,
    loss_at=lambda step: 1.0,
    at_step=lambda step: None,
    at_evaluation=lambda step: None,
    bad: int = 0,
):
    """Trains a state that is its own step number; returns what happened, and what the loop returned: None when it stopped."""
    log = Log()

    def evaluate(step, state, names):
        at_evaluation(step)
        stop.check_in_evaluation()
        log.append(("evaluate", step, state, tuple(names)))

    def step(state, batch):
        assert int(batch["step"][0]) == state  # the data of this step and no other
        at_step(state + 1)
        log.append(("step", state + 1))
        return state + 1, {
            "loss": jnp.float32(loss_at(state + 1)),
            "learning_rate": jnp.float32(0.1),
            "substituted": jnp.float32(bad),
        }

    batches = ({"step": np.full(8, i)} for i in range(first_step, milestones.total))
    result = None
    with StopRequest() as stop, contextlib.suppress(Stopped):
        result = train(
            first_step, step, batches, make_mesh(1), milestones,
            first_step=first_step,
            save=lambda step, state: log.append(("save", step, state)),
            evaluate=evaluate,
            metrics=log,
            rate=Rate(8, 8, 1e9, None, Stopwatch()),
            unreadable_share=UnreadableShare(80, 8, 0.25, lambda count: ["ant.jpg is bad"][:count]),
            stop=stop,
            profiler=Profiler(range(0), Path()),
        )  # fmt: skip
    return log, result


def of_kind(log, *kinds):
    return [event for event in log if event[0] in kinds]


@pytest.mark.parametrize("first_step", [0, 4])
def test_states_are_saved_and_evaluated_when_due_the_saving_first(first_step):
    milestones = Milestones(
        total=10, log_every=3, checkpoint_every=4, evaluate_every={"often": 4, "rare": 8, "at the end only": 0}
    )
    log, result = run(milestones, first_step=first_step)
    expected = [
        ("save", 4, 4), ("evaluate", 4, 4, ("often",)),
        ("save", 8, 8), ("evaluate", 8, 8, ("often", "rare")),
        ("save", 10, 10),
    ]  # fmt: skip
    assert of_kind(log, "save", "evaluate") == [event for event in expected if event[1] > first_step]
    assert of_kind(log, "metrics") == [("metrics", step, 1.0) for step in (3, 6, 9) if step > first_step]
    assert of_kind(log, "step") == [("step", step) for step in range(first_step + 1, 11)]
    assert result == 10


def test_without_an_interval_a_checkpoint_is_made_at_the_end_alone():
    log, _ = run(Milestones(total=5, log_every=100, checkpoint_every=0, evaluate_every={}))
    assert of_kind(log, "save", "evaluate", "metrics") == [("save", 5, 5)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [3, 4, 5, 10])
def test_a_state_that_is_not_finite_is_never_saved_and_the_error_names_step_and_number(bad, step):
    saved = []
    milestones = Milestones(total=10, log_every=100, checkpoint_every=1, evaluate_every={})
    with pytest.raises(DivergedError, match=rf"Step {step} is not finite \(loss={bad}\)") as error:
        run(milestones, loss_at=lambda s: bad if s == step else 1.0, at_step=saved.append)
    assert "learning_rate" in str(error.value)
    assert max(saved) == step  # with a checkpoint at every step, no later one was begun


def test_between_checkpoints_divergence_is_noticed_one_step_later():
    begun = []
    milestones = Milestones(total=10, log_every=100, checkpoint_every=0, evaluate_every={})
    with pytest.raises(DivergedError, match="Step 3 "):
        run(milestones, loss_at=lambda s: np.nan if s == 3 else 1.0, at_step=begun.append)
    assert max(begun) == 4


def test_too_many_bad_images_stop_it_one_step_later_and_what_was_saved_stays():
    milestones = Milestones(total=10, log_every=1, checkpoint_every=3, evaluate_every={})
    begun = []
    with pytest.raises(TooManyUnreadableError, match=r"(?s)By step 7, 21 of 56 .*ant\.jpg"):  # 20 of each 80 are allowed
        run(milestones, bad=3, at_step=begun.append)
    assert max(begun) == 8


def test_bad_images_are_counted_from_the_beginning_in_the_metrics():
    log, _ = run(Milestones(total=10, log_every=5, checkpoint_every=0, evaluate_every={}), bad=2)
    assert log.substituted == [10, 20]


def test_asked_to_stop_it_saves_the_step_it_is_at_and_evaluates_nothing():
    milestones = Milestones(total=10, log_every=100, checkpoint_every=0, evaluate_every={"often": 1})
    log, result = run(milestones, at_step=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 6 else None)
    assert result is None
    assert log[-2:] == [("step", 6), ("save", 6, 6)]
    assert len(of_kind(log, "evaluate")) == 5


def test_asked_to_stop_in_an_evaluation_it_saves_the_step_and_leaves_it():
    milestones = Milestones(total=10, log_every=2, checkpoint_every=0, evaluate_every={"often": 2})
    log, result = run(milestones, at_evaluation=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 6 else None)
    assert result is None
    assert log[-3:] == [("step", 6), ("metrics", 6, 1.0), ("save", 6, 6)]
    assert [event[1] for event in of_kind(log, "evaluate")] == [2, 4]


def test_pauses_for_checkpoints_and_evaluations_do_not_count_as_training_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stopwatch = Stopwatch()
    rate = Rate(batch_size=100, num_devices=4, flops_per_device=1e12, peak_flops_per_sec=1e13, stopwatch=stopwatch)

    def spend(part, seconds):
        with stopwatch(part):
            clock[0] += seconds

    for part, seconds in (("data", 1.0), ("evaluation", 100.0), ("checkpoint", 50.0)):
        spend(part, seconds)
    clock[0] += 3.0  # the device
    numbers = rate.since_restart(10)
    assert numbers == pytest.approx(
        {"images_per_sec": 250.0, "images_per_sec_per_device": 62.5, "data_wait_share": 0.25, "mfu": 0.25}
    )
    rate.restart(10)
    clock[0] += 1.0
    assert rate.since_restart(11)["images_per_sec"] == pytest.approx(100.0)


def test_without_a_terminal_a_line_is_printed_at_each_interval_of_the_log_with_the_mean_loss_since_the_last(capsys):
    run(Milestones(total=7, log_every=3, checkpoint_every=0, evaluate_every={}), loss_at=lambda step: float(step))
    lines = [line.split(", ")[:2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [["step 3 of 7", "loss 2"], ["step 6 of 7", "loss 5"]]
