"""The loop around the step: data in, metrics out, evaluations and checkpoints when due, and stopping well.

The host stays one step behind the device: it starts step n and only then reads the numbers of step n - 1, so that the device
always has work. Only a checkpoint and an evaluation wait for the device.
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
from mixer_jax.records import MetricWriter, Progress, Stopwatch
from mixer_jax.training.preemption import Stopped, StopRequest
from mixer_jax.training.profiling import Profiler
from mixer_jax.training.state import TrainState
from mixer_jax.training.step import StepMetrics, TrainStep
from mixer_jax.training.unreadable_share import UnreadableShare


class DivergedError(UserError):
    """The loss or a norm is not finite."""


@dataclasses.dataclass
class Rate:
    """Speed between two lines of the log: evaluations and checkpoints do not count."""

    batch_size: int
    num_devices: int
    flops_per_device: float  # of one step
    peak_flops_per_sec: float | None  # of one device; None when unknown
    stopwatch: Stopwatch

    def __post_init__(self) -> None:
        self.restart(step=0)

    def restart(self, step: int) -> None:
        self._step, self._start, self._seconds = step, time.monotonic(), dict(self.stopwatch.seconds)

    def since_restart(self, step: int) -> dict[str, float | None]:
        spent = {part: seconds - self._seconds.get(part, 0.0) for part, seconds in self.stopwatch.seconds.items()}
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
    """When the loop logs, saves and evaluates, in steps. 0 in `evaluate_every` means only at the end.

    What the evaluator `saved_for` evaluates is saved before.
    """

    total: int
    log_every: int
    checkpoint_every: int
    evaluate_every: dict[str, int]
    saved_for: str = ""

    def evaluations_due(self, step: int) -> list[str]:
        return [name for name, every in self.evaluate_every.items() if every and step % every == 0 and 0 < step < self.total]

    def checkpoint_due(self, step: int) -> bool:
        is_regular = step == self.total or (self.checkpoint_every > 0 and step % self.checkpoint_every == 0)
        return is_regular or self.saved_for in self.evaluations_due(step)


class Log:
    """The lines of metrics.jsonl and of the progress, one for every `every` steps."""

    def __init__(self, every: int, metrics: MetricWriter, progress: Progress, rate: Rate):
        self._every, self._metrics, self._progress, self._rate = every, metrics, progress, rate
        self._losses: list[float] = []  # of the steps since the last line

    def add(self, step: int, numbers: dict[str, float]) -> None:
        """Take the metrics of a step. The progress shows the mean loss since its last line, the files the loss of this step."""
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
    """Run steps first_step + 1 .. milestones.total; return the state, which has been saved.

    Raises Stopped when asked to stop, in an evaluation too, once the step is saved; DivergedError as soon as a number is not
    finite; TooManyUnreadableError as soon as too many images could not be read: each on every host at the same step. What is on
    disk then is sound.
    """
    stopwatch = rate.stopwatch
    progress = Progress(milestones.total, first_step)
    log = Log(milestones.log_every, metrics, progress, rate)
    rate.restart(first_step)

    def read(step: int, values: StepMetrics) -> None:
        with stopwatch("device"):
            numbers = {name: float(value) for name, value in jax.device_get(values).items()}
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
            with stopwatch("data"):  # waits only if the host is slower than the device
                batch = to_global(next(batches), mesh)
            with profiler.step(step):
                state, values = train_step(state, batch)  # returns at once; the old state's memory is given to the new one
            profiler.finish(step, values)
            if unread:
                read(*unread)  # the step before this one
            unread = step, values
            stopping = stop.reached()  # every step, on every host: they must agree on the answer
            due = milestones.evaluations_due(step)
            if not (stopping or due or milestones.checkpoint_due(step)):
                continue
            read(*unread)  # before saving and evaluating: a state that is not finite never reaches the disk
            unread = None
            progress.update(step)
            if stopping or milestones.checkpoint_due(step):  # before evaluating: a kill during an evaluation then costs nothing
                with stopwatch("checkpoint"):
                    save(step, state)
            if stopping:
                raise Stopped("in training")
            if due:
                try:
                    with stopwatch("evaluation"):
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
