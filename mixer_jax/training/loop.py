"""The training loop: it feeds batches to the step, writes metrics, and saves and evaluates when due.

The host stays one step behind the device. It starts step n and only then reads the metrics of step n - 1, so the device always
has work. Only a checkpoint or an evaluation waits for the device.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from mixer_jax.errors import UserError
from mixer_jax.parallel import to_global
from mixer_jax.records import MetricWriter, Progress
from mixer_jax.stopwatch import DEVICE, Stopwatch
from mixer_jax.training.preemption import Stopped, StopRequest
from mixer_jax.training.profiling import Profiler
from mixer_jax.training.state import TrainState
from mixer_jax.training.step import StepMetrics, TrainStep
from mixer_jax.training.unreadable_share import UnreadableShare


class DivergedError(UserError):
    """The loss or a norm is not finite, so training cannot go on."""


@dataclasses.dataclass
class Rate:
    """The speed of training since the last line of the log. The phases "evaluation" and "checkpoint" do not count."""

    batch_size: int
    num_devices: int
    flops_per_device: float  # The floating-point operations of one step on one device.
    peak_flops_per_sec: float | None  # The peak of one device, or None if it is unknown.
    stopwatch: Stopwatch

    def __post_init__(self) -> None:
        self.restart(step=0)

    def restart(self, step: int) -> None:
        """Measure from `step` on."""
        self._step, self._start, self._seconds = step, time.monotonic(), self.stopwatch.read().seconds

    def since_restart(self, step: int) -> dict[str, float | None]:
        """Return the speed metrics of the steps up to `step`; "mfu" is the share of the device's peak."""
        spent = {part: seconds - self._seconds.get(part, 0.0) for part, seconds in self.stopwatch.read().seconds.items()}
        pauses = spent.get("evaluation", 0.0) + spent.get("checkpoint", 0.0)
        seconds = max(1e-9, time.monotonic() - self._start - pauses)
        step_seconds = seconds / max(1, step - self._step)
        images_per_sec = self.batch_size / step_seconds
        peak = self.peak_flops_per_sec
        return {
            "images_per_sec": images_per_sec,
            "images_per_sec_per_device": images_per_sec / self.num_devices,
            "data_wait_share": spent.get("data", 0.0) / seconds,
            "mfu": self.flops_per_device / step_seconds / peak if peak else None,
        }


@dataclasses.dataclass(frozen=True)
class Milestones:
    """The steps at which the loop logs, saves and evaluates.

    An evaluator with 0 in `evaluate_every` runs only at the end. The state is saved before the evaluator `saved_for` runs.
    """

    total: int
    log_every: int
    checkpoint_every: int
    evaluate_every: dict[str, int]
    saved_for: str = ""

    def evaluations_due(self, step: int) -> list[str]:
        """Return the names of the evaluators that run after `step`."""
        return [name for name, every in self.evaluate_every.items() if every and step % every == 0 and 0 < step < self.total]

    def checkpoint_due(self, step: int) -> bool:
        """Return whether the state is saved after `step`."""
        is_regular = step == self.total or (self.checkpoint_every > 0 and step % self.checkpoint_every == 0)
        return is_regular or self.saved_for in self.evaluations_due(step)


class Log:
    """The log of training: one line of metrics.jsonl and of the progress for every `every` steps."""

    def __init__(self, every: int, metrics: MetricWriter, progress: Progress, rate: Rate):
        self._every, self._metrics, self._progress, self._rate = every, metrics, progress, rate
        self._losses: list[float] = []  # The losses of the steps since the last line.

    def add(self, step: int, numbers: dict[str, float]) -> None:
        """Add the metrics of one step. The progress shows the mean loss since its last line. The file has this step's loss."""
        self._losses.append(numbers["loss"])
        self._progress.update(step)
        if step % self._every == 0:
            logged = numbers | self._rate.since_restart(step)
            self._metrics.write(step, logged)
            self._progress.update(step, progress_text(logged | {"loss": statistics.fmean(self._losses)}))
            self._losses.clear()
            self._rate.restart(step)


def train(
    state: TrainState,
    train_step: TrainStep,
    batches: Iterator[dict[str, np.ndarray]],
    mesh: Mesh,
    milestones: Milestones,
    *,
    first_step: int,
    save: Callable[[int, TrainState], None],
    evaluate: Callable[[int, TrainState, list[str]], None],
    metrics: MetricWriter,
    rate: Rate,
    unreadable_share: UnreadableShare,
    stop: StopRequest,
    profiler: Profiler,
) -> TrainState:
    """Run the steps from first_step + 1 to milestones.total, and return the state, which has been saved.

    Args:
      state: The state after `first_step` steps. Its memory is given to the next state.
      train_step: The compiled step.
      batches: This host's part of each batch, from step first_step + 1 on.
      mesh: The devices.
      milestones: When to log, save and evaluate.
      first_step: The number of steps done before.
      save: Saves the state of a step. It returns when the state may be changed.
      evaluate: Runs the evaluators with these names on the state of a step.
      metrics: Takes the logged metrics.
      rate: Measures the speed.
      unreadable_share: Counts the images that could not be read.
      stop: Says whether the run was asked to stop.
      profiler: Traces some of the steps.

    Raises:
      Stopped: the run was asked to stop, in training or in an evaluation. The state has been saved.
      DivergedError: a metric is not finite.
      TooManyUnreadableError: too many images could not be read.

    Each of them is raised on every host at the same step, and the checkpoints on disk are sound.
    """
    stopwatch = rate.stopwatch
    progress = Progress(milestones.total, first_step)
    log = Log(milestones.log_every, metrics, progress, rate)
    rate.restart(first_step)

    def read(step: int, values: StepMetrics) -> None:
        """Wait for the metrics of a step, check them, and log them."""
        with stopwatch(DEVICE):
            numbers = {name: float(value) for name, value in jax.device_get(values).items()}
        stopwatch.beat(step)
        not_finite = [f"{name}={number}" for name, number in numbers.items() if not math.isfinite(number)]
        if not_finite:
            raise DivergedError(
                f"Step {step} is not finite ({', '.join(not_finite)}). No checkpoint holds it; earlier ones are kept. Lower "
                "optimizer.learning_rate, lengthen schedule.warmup or lower optimizer.clip_norm, and use a new --workdir."
            )
        numbers["substituted"] = unreadable_share.add(step, int(numbers["substituted"]))
        log.add(step, numbers)

    unread = None
    try:
        for step in range(first_step + 1, milestones.total + 1):
            with stopwatch("data"):  # This waits only if the host is slower than the device.
                batch = to_global(next(batches), mesh)
            with profiler.step(step):
                state, values = train_step(state, batch)  # This returns before the step has been computed.
            profiler.finish(step, values)
            if unread:
                read(*unread)  # The metrics of the step before this one.
            unread = step, values
            stopping = stop.reached()  # All hosts ask at every step, so that they get the same answer.
            due = milestones.evaluations_due(step)
            if not (stopping or due or milestones.checkpoint_due(step)):
                continue
            read(*unread)  # This check comes before saving, so that a state that is not finite never reaches the disk.
            unread = None
            progress.update(step)
            if stopping or milestones.checkpoint_due(step):  # Saving comes first, so that a kill in an evaluation costs no step.
                save(step, state)
            if stopping:
                raise Stopped("in training")
            if due:
                try:
                    evaluate(step, state, due)
                except Stopped:
                    save(step, state)
                    raise
    finally:
        profiler.close()
        progress.close()
    return state


def progress_text(numbers: dict[str, float | None]) -> str:
    """Return the text of the progress line."""
    mfu = "n/a" if numbers["mfu"] is None else f"{numbers['mfu']:.1%}"
    return (
        f"loss {numbers['loss']:.4g}, lr {numbers['learning_rate']:.3g}, {numbers['images_per_sec']:.0f} img/s "
        f"({numbers['images_per_sec_per_device']:.0f}/device), data wait {numbers['data_wait_share']:.0%}, MFU {mfu}"
    )
