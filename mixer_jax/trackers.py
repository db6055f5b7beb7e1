"""Weights & Biases and MLflow as further writers of a run's metrics, with config.tracker. Nothing of them is imported without it.

A tracker gets the numbers of metrics.jsonl, under the same names and steps, and the config. Its own environment variables say
where it is and who writes (WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, ...).

A tracker that fails costs no training: one line says so, metrics.jsonl has every number, and the next start sends those that are
missing. All calls of a tracker's library are made by one thread, for which nobody waits longer than CLOSE_SECONDS.

WORKDIR/trackers.json has {tracker: {"id": its run, "last_steps": {name of a metric: the last step that was sent}}}. A resumed run
goes on in the same run of the tracker. It computes steps again that were sent before a kill: `last_steps` keeps them from being
sent twice.
"""

import importlib.util
import math
import os
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ml_collections import ConfigDict

from mixer_jax.config import flatten
from mixer_jax.errors import EnvironmentFault, UserError, as_message
from mixer_jax.storage import read_json, write_json

Ending = Literal["finished", "failed", "stopped"]  # A run that was stopped is to go on later.
OPEN_SECONDS = 180  # A first start waits this long for the tracker.
CLOSE_SECONDS = 20  # Schedulers give about 30 seconds between SIGTERM and SIGKILL.
MLFLOW_VALUE_CHARACTERS = 6000  # The most that MLflow keeps of an option's value.
MLFLOW_MISTAKES = ("PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


class TrackedRun(Protocol):
    """The run in a tracker that has the metrics of one of our runs.

    It is made with the name of our run, its folder, the flat config, and the id of the tracker's run, or None for a new one.

    Attributes:
      id: the id of the tracker's run.
      last_step: the last step that the tracker has, or infinity if it has all that was sent or does not say.
    """

    id: str
    last_step: float

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step, by name."""

    def end(self, ending: Ending) -> None:
        """Send what is left, and say how our run has ended."""


class WandbRun:
    """A run in Weights & Biases.

    W&B refuses a step below its last one, but the figures of an evaluator may come after those of later steps. So its own count
    is left alone, and `step` is a metric that all charts have as their axis.

    W&B sends and writes in a process of its own, which ends when ours is killed. What it has not sent by then is known from the
    summary of the resumed run. Without a server, what it has not written is lost: 0.31 writes every 15 seconds by default.
    """

    def __init__(self, name: str, folder: Path, options: Mapping[str, Any], run_id: str | None):
        import wandb

        settings = wandb.Settings(
            quiet=True,
            console=os.environ.get("WANDB_CONSOLE", "off"),  # Standard output is not captured: it is ours.
            finish_timeout=CLOSE_SECONDS * 3 / 4,
            finish_timeout_raises=True,
        )
        if hasattr(settings, "x_transaction_log_flush_interval"):  # The setting of 0.31 is not promised to last.
            settings.x_transaction_log_flush_interval = 1.0
        self._run = wandb.init(
            id=run_id,
            resume="allow" if run_id else None,
            name=name,
            dir=os.environ.get("WANDB_DIR", str(folder)),
            config=dict(options),
            allow_val_change=True,
            settings=settings,
        )
        self.id = self._run.id
        self.last_step = math.inf if self._run.offline else self._run.summary.get("step", {}).get("max", -1)
        self._run.define_metric("step", summary="max")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step, by name."""
        self._run.log({"step": step, **values})

    def end(self, ending: Ending) -> None:
        """Send what is left, and say how our run has ended. W&B calls a run that was stopped and is to go on preempted."""
        if ending == "stopped":
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if ending == "finished" else 1)

    @staticmethod
    def is_mistake(error: BaseException) -> bool:
        """Return whether a person must do something about an error, such as logging in."""
        import wandb

        return isinstance(error, wandb.errors.UsageError | wandb.errors.AuthenticationError)


class MlflowRun:
    """A run in MLflow. It is the active run of the thread that makes it, and of no other. It has all that was sent."""

    last_step = math.inf

    def __init__(self, name: str, folder: Path, options: Mapping[str, Any], run_id: str | None):
        import mlflow

        self._mlflow = mlflow
        self.id = mlflow.start_run(run_id=run_id, run_name=name).info.run_id
        if run_id is None:  # MLflow refuses another value of an option, which a resumed run may have.
            mlflow.log_params({option: str(value)[:MLFLOW_VALUE_CHARACTERS] for option, value in options.items()})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step, by name."""
        self._mlflow.log_metrics(dict(values), step=step)

    def end(self, ending: Ending) -> None:
        """Say how our run has ended."""
        self._mlflow.end_run({"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}[ending])

    @staticmethod
    def is_mistake(error: BaseException) -> bool:
        """Return whether a person must do something about an error, such as naming another server."""
        return isinstance(error, ImportError) or getattr(error, "error_code", "") in MLFLOW_MISTAKES


RUNS = {"wandb": WandbRun, "mlflow": MlflowRun}
TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}


def check_tracker(name: str) -> None:
    """Raise UserError if the library of a tracker is not installed. `name` is the value of config.tracker."""
    spec = importlib.util.find_spec(name) if name in RUNS else None
    if name in RUNS and (spec is None or spec.origin is None):  # A folder `wandb`, such as W&B leaves, has a spec without origin.
        raise UserError(f"config.tracker={name} needs a library that is not installed: pip install 'mixer_jax[{name}]'")


class Tracker:
    """The sender of a run's metrics to a tracker.

    Raises UserError or EnvironmentFault if the tracker cannot be reached at the first start of a run. At a later start, a tracker
    that cannot be reached is one that fails.
    """

    def __init__(self, name: str, config: ConfigDict, workdir: Path):
        self._name, self._file = name, workdir / "trackers.json"
        self._records = read_json(self._file)
        self._record = self._records.setdefault(name, {})
        if not _is_sound(self._record):
            raise UserError(f"{self._file} is damaged. Remove it: {TITLES[name]} then gets a new run with all numbers.")
        self._is_new = "id" not in self._record
        self._queue: queue.SimpleQueue[tuple[int, dict[str, float]] | Ending] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._has_said = False
        self._opened = threading.Event()
        arguments = workdir.name, workdir, flatten(config), self._record.get("id")
        self._thread = threading.Thread(target=self._work, args=arguments, name=f"tracker {name}", daemon=True)
        self._thread.start()
        if self._is_new:
            self._wait_for_first_opening()

    def _wait_for_first_opening(self) -> None:
        if not self._opened.wait(OPEN_SECONDS):
            raise EnvironmentFault(self._refusal(f"it did not answer within {OPEN_SECONDS} seconds"))
        if self._error:
            kind = UserError if RUNS[self._name].is_mistake(self._error) else EnvironmentFault
            raise kind(self._refusal(_brief(self._error))) from self._error

    def _refusal(self, reason: str) -> str:
        return as_message(
            f"{TITLES[self._name]} cannot be used: {reason}. Mend this, or train without it (--config.tracker=none): "
            "metrics.jsonl has all numbers, and a later start with it sends them."
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Send those of the values of a step that are numbers, unless they were sent before. This does not wait."""
        if self._error is None:
            finite = {name: x for name, x in values.items() if isinstance(x, int | float) and math.isfinite(x) and name != "step"}
            self._queue.put((step, finite))

    def close(self, ending: Ending) -> None:
        """Say how the run has ended. Wait until all is sent, but at most CLOSE_SECONDS."""
        self._queue.put(ending)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._say_failed(f"it has not taken all within {CLOSE_SECONDS} seconds")

    def _work(self, name: str, folder: Path, options: dict[str, Any], run_id: str | None) -> None:
        """Open the tracker's run, and send what is in the queue until the ending comes. This is the thread."""
        try:
            run = RUNS[self._name](name, folder, options, run_id)
            last_steps = self._record.get("last_steps", {})
            self._record |= {"id": run.id, "last_steps": {name: min(step, run.last_step) for name, step in last_steps.items()}}
            write_json(self._file, self._records)
            self._opened.set()
            print(f"The metrics also go to {TITLES[self._name]}, run {run.id}.", file=sys.stderr)
            while isinstance(item := self._queue.get(), tuple):
                self._send(run, *item)
            run.end(item)
        except BaseException as error:  # A library may even raise SystemExit.
            self._error = error
            if self._opened.is_set() or not self._is_new:
                self._say_failed(_brief(error))
            self._opened.set()

    def _send(self, run: TrackedRun, step: int, values: dict[str, float]) -> None:
        """Send the numbers that were not sent before, and record that."""
        last_steps = self._record["last_steps"]
        new = {name: value for name, value in values.items() if step > last_steps.get(name, -1)}
        if new:
            run.log(step, new)
            last_steps |= dict.fromkeys(new, step)
            write_json(self._file, self._records)

    def _say_failed(self, reason: str) -> None:
        """Print, once, that the tracker gets no more metrics."""
        if self._has_said:
            return
        self._has_said = True
        print(
            as_message(
                f"{TITLES[self._name]} gets no more metrics: {reason}. metrics.jsonl has all of them, and the next start of this "
                "run sends those that are missing."
            ),
            file=sys.stderr,
        )


def open_tracker(config: ConfigDict, workdir: Path) -> Tracker | None:
    """Return the tracker of config.tracker, or None without one."""
    return Tracker(config.tracker, config, workdir) if config.tracker in RUNS else None


def _is_sound(record: Any) -> bool:
    """Return whether a value is what trackers.json has of a tracker, or {}."""
    steps = record.get("last_steps", {}) if isinstance(record, dict) else None
    is_sound = isinstance(steps, dict) and all(isinstance(step, int) for step in steps.values())
    return is_sound and isinstance(record.get("id", ""), str)


def _brief(error: BaseException) -> str:
    """Return an error's type and the first line of its message, in at most 300 characters."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"[:300].rstrip(": .")
