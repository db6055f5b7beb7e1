"""The records of a run: its folder, metrics, results and progress. Nothing here touches a device.

WORKDIR/config.json        every option of the run; a resumed run is compared with it
WORKDIR/run.json           a record for each start: command, versions, git commit, machine
WORKDIR/metrics.jsonl      a line every `log_every_steps`, and one for every evaluation: {"step": ..., name: number, ...}
WORKDIR/tensorboard/       the same numbers as TensorBoard events
WORKDIR/trackers.json      the run in a tracker such as Weights & Biases, with config.tracker, and what it has got (trackers.py)
WORKDIR/results.json       the last evaluation: step, params_sha256, evals, seconds by part
WORKDIR/predictions/       NAME.parquet: the predictions for each example of the last evaluation by the evaluator NAME
WORKDIR/best.json          the best checkpoint, with config.checkpoint.best: figure, value, step, checkpoint
WORKDIR/checkpoints/       a folder for each saved step
"""

import json
import os
import platform
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from tqdm import tqdm

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts.software import git_commit, versions
from mixer_jax.lease import HeldError, Lease
from mixer_jax.recorded_config import differences, moved_data, recorded_config
from mixer_jax.storage import json_text, naming, read_bytes, read_json, refuse_links, write_json, write_whole
from mixer_jax.tensorboard import TensorBoard, numbers
from mixer_jax.trackers import Ending, Tracker

OTHER_WORKDIR = "choose another --workdir."
PREDICTIONS = "predictions"  # A folder in the run's folder, and an entry of results.json.
SECONDS_BETWEEN_LINES = 60  # Between two lines of progress without a text, where there is no terminal.
MAX_METRICS_BYTES = 2**30  # About ten million lines.
TRAIN_ON = (
    "\nA schedule that decays ends at config.total, so with another length every step would be another: only a run with "
    "schedule.decay=constant can be made longer. To train on from here, start a new run with another --workdir and "
    "--config.init_from={} --config.init_head=restore."
)


class Workdir:
    """The folder of a run, which this process holds until it ends, so that a second run cannot write in it.

    All hosts of a pod name the same folder, on a disk that they share. Only the `writer` among them locks the folder and writes
    in it. The file `lock` names the `owner`, which is None for the other hosts. Raises EnvironmentFault while another process
    holds the folder.
    """

    def __init__(self, path: str, writer: bool = True):
        self.path = check_workdir(path)
        self._writer = writer
        self.lock = self.path / ".lock"
        self._lease = self._take() if writer else None
        self.owner = self._lease.owner if self._lease else None

    def _take(self) -> Lease:
        self.path.mkdir(parents=True, exist_ok=True)
        refuse_links(self.path / PREDICTIONS)
        try:
            return Lease(self.lock)
        except HeldError as error:
            raise EnvironmentFault(
                f"{self.path} is in use by {error}. Wait for it, stop it, or choose another --workdir."
            ) from error

    def refuse_other_run(self, config: ConfigDict) -> None:
        """Raise UserError if the folder has a run of another config; the message lists the options that differ.

        A folder that has the results of an evaluation alone is refused too, because training would replace them.
        """
        if (before := self._read_config()) is None:
            if (self.path / "results.json").exists():
                raise UserError(f"{self.path} has the results of evaluate.py, and training would replace them: {OTHER_WORKDIR}")
            return
        changed = differences(before, _as_recorded(config))
        if changed:
            lines = "".join(
                f"\n  {name}: {then!r} there, {now!r} now{_flag(name, then)}" for name, (then, now) in changed.items()
            )
            longer = TRAIN_ON.format(self.path) if any(name.startswith("total.") for name in changed) else ""
            raise UserError(f"{self.path} holds a run with another config. Choose another --workdir, or undo:{lines}{longer}")

    def say_moved_data(self, config: ConfigDict) -> None:
        """Print each path of the training data that has changed since the last start. The caller has compared the data."""
        before = self._read_config() if self._writer else None
        moved = moved_data(before, _as_recorded(config)) if before is not None else {}
        for name, (then, now) in moved.items():
            print(f"config.{name} is {now} now, and was {then}: the records are the same, so the run goes on.")

    def _read_config(self) -> ConfigDict | None:
        """Return the config of the run in the folder, or None if there is no run."""
        file = self.path / "config.json"
        return recorded_config(read_json(file)) if file.exists() else None

    def record_start(self, config: ConfigDict, facts: dict) -> None:
        """Write config.json, and add a record of this start to run.json: `facts`, the command, versions and the git commit."""
        if not self._writer:
            return
        write_json(self.path / "config.json", json.loads(config.to_json()))
        file = self.path / "run.json"
        starts = read_json(file).get("starts", [])
        start = {
            "time": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            "command": " ".join([Path(sys.executable).name, *sys.argv]),
            "git_commit": git_commit(),
            "python": platform.python_version(),
            "versions": versions(),
            "host": platform.node(),
        }
        write_json(file, {"starts": [*starts, start | facts]})

    def add_results(self, results: dict) -> None:
        """Write results.json. It keeps the figures of other evaluators if they are of the same step and parameters."""
        if not self._writer:
            return
        before = read_results(self.path)
        if all(before.get(name) == results[name] for name in ("step", "params_sha256")):
            parts = ("evals", "evaluators", PREDICTIONS)
            results = results | {part: before.get(part, {}) | results[part] for part in parts}
        write_json(self.path / "results.json", results)

    def replaced_by(self, results: dict) -> str:
        """Return a line about the results of other parameters that `add_results` would replace, or "" if there are none."""
        before = read_results(self.path) if self._writer else {}
        if before.get("params_sha256") in (None, results["params_sha256"]):
            return ""
        return (
            f"{self.path / 'results.json'} had the figures of {before.get('checkpoint', 'other parameters')}: these replace them."
        )

    def has_results(self, step: int) -> bool:
        """Return whether results.json is of this step."""
        return self._writer and read_results(self.path).get("step") == step

    def has_figures(self, step: int, evaluator: str, description: dict, with_predictions: bool) -> bool:
        """Return whether there are the figures of an evaluator with this name and description at this step.

        With `with_predictions`, its predictions for each example must be there too.
        """
        results = read_results(self.path)
        described = results.get("evaluators", {}).get(evaluator, description)  # results before 2026-12 do not describe them
        if not (self.has_results(step) and evaluator in results.get("evals", {}) and described == description):
            return False
        is_written = evaluator in results.get(PREDICTIONS, {}) and predictions_file(self.path, evaluator).exists()
        return is_written or not with_predictions


def predictions_file(workdir: Path, evaluator: str) -> Path:
    """Return the file of the predictions of an evaluator in a run's folder."""
    return workdir / PREDICTIONS / f"{evaluator}.parquet"


def check_workdir(path: str) -> Path:
    """Return the absolute path of a run's folder. Raises UserError if the folder cannot be made or written in."""
    if "://" in path:
        raise UserError(f"--workdir={path}: a bucket must be mounted as a folder, or use a disk that all hosts share.")
    if not path:
        raise UserError("--workdir is empty: name the run's folder.")
    folder = Path(path).expanduser().absolute()
    if not _is_utf8(str(folder)):
        raise UserError(
            f"--workdir={path!r} is not read as UTF-8 here, in which checkpoints need it. Set PYTHONUTF8=1, or rename it."
        )
    existing = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise UserError(f"--workdir={path}: {existing} is there and is no folder. Name a folder, or one that can be made.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--workdir={path}: you may not write in {existing}. Change its permissions, or name another folder.")
    return folder


def start_line(config: ConfigDict, facts: dict, workdir: Path) -> str:
    """Return a line that says what runs where. `facts` has devices, processes, parameters, first_step and total_steps."""
    model = f"{config.model.family} {config.model.variant}, {facts['parameters'] / 1e6:.3g} million parameters"
    machines = f"{facts['devices']} x {facts['device_kind']}, {facts['processes']} x host"
    steps = f"steps {facts['first_step'] + 1} to {facts['total_steps']} of {config.batch_size} images"
    return f"{model}, on {machines}: {steps}, into {workdir}"


def _is_utf8(name: str) -> bool:
    """Return whether the locale's encoding could read every byte of a name."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


class MetricWriter:
    """The writer of metrics.jsonl and of the TensorBoard events of one run, which also gives all numbers to a tracker.

    Lines of steps after `from_step` are dropped at the start, because a resumed run writes them again. Lines that cannot be read
    are kept in a file of their own. A context manager closes it.

    Attributes:
      ending: how the run has ended, for the tracker. It is "failed" after an exception.
    """

    def __init__(
        self, workdir: Path, from_step: int, writer: bool = True, open_tracker: Callable[[], Tracker | None] = lambda: None
    ):
        self._workdir, self._writer = workdir, writer
        self.ending: Ending = "finished"
        if not writer:
            return
        refuse_links(workdir / "tensorboard")
        self._file = workdir / "metrics.jsonl"
        rows, damaged = _parse_metrics(self._file)
        kept = [row for row in rows if row["step"] <= from_step]
        if damaged:
            aside = workdir / f"metrics.damaged-{int(time.time())}.txt"
            with write_whole(aside) as temporary:
                temporary.write_bytes(b"\n".join(damaged) + b"\n")
            print(f"{len(damaged)} lines of {self._file} cannot be read: they are kept in {aside.name}.")
        with write_whole(self._file) as temporary:
            temporary.write_text("".join(json_text(row) + "\n" for row in kept))
        self._tensorboard, self._tracker = TensorBoard(workdir / "tensorboard", from_step, kept), open_tracker()
        for row in kept if self._tracker else ():
            self._tracker.write(row["step"], row)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.ending = "failed" if error else self.ending
        self.close()

    def write(self, step: int, values: dict[str, float | None]) -> None:
        """Write the metrics of a step."""
        if not self._writer:
            return
        with naming(self._file), open(self._file, "a") as file:
            file.write(json_text({"step": step} | values) + "\n")
        self._tensorboard.write(step, numbers(values))
        if self._tracker:
            self._tracker.write(step, values)

    def evaluated(self, step: int, evaluator: str) -> bool:
        """Return whether figures of an evaluator at `step` have been written."""
        return any(name.startswith(f"{evaluator}/") for name in self._read_step(step))

    def values(self, name: str) -> dict[int, float | None]:
        """Return {step: value} of a metric, or {} if this process is not the writer."""
        rows = read_metrics(self._workdir) if self._writer else []
        return {row["step"]: row[name] for row in rows if name in row}

    def write_evals(self, step: int, evals: dict[str, dict]) -> None:
        """Write the figures of evaluators as NAME/FIGURE, except those that an earlier start has written.

        Figures that are lists are written to results.json alone.
        """
        written = self._read_step(step)
        figures = {
            f"{name}/{figure}": value
            for name, figures in evals.items()
            for figure, value in figures.items()
            if not isinstance(value, list)
        }
        new = {name: value for name, value in figures.items() if name not in written or written[name] != value}
        if new:
            self.write(step, new)

    def _read_step(self, step: int) -> dict[str, float | None]:
        """Return all metrics of a step. If a name was written several times, the last value counts."""
        rows = read_metrics(self._workdir) if self._writer else []
        return {name: value for row in rows if row["step"] == step for name, value in row.items()}

    def close(self) -> None:
        """Close the event file, and tell the tracker how the run has ended."""
        if not self._writer:
            return
        self._tensorboard.close()
        if self._tracker:
            self._tracker.close(self.ending)


class Progress:
    """The progress of some work and the time left: a bar on a terminal, and otherwise lines on standard error.

    A line is printed for each text that is given, and about once a minute without a text.
    """

    def __init__(self, total: int, first: int, unit: str = "step"):
        """Start at `first` of `total` units."""
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=first, unit=unit, disable=not self._is_terminal, dynamic_ncols=True)
        self._total, self._first, self._unit = total, first, unit
        self._start = self._last_line = time.monotonic()

    def update(self, done: int, text: str | None = None) -> None:
        """Show that `done` units are done, and `text` beside the number."""
        if self._is_terminal:
            self._bar.update(done - self._bar.n)
            if text is not None:
                self._bar.set_postfix_str(text)
        elif text is not None or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            seconds = (self._last_line - self._start) / max(1, done - self._first) * (self._total - done)
            parts = [f"{self._unit} {done} of {self._total}", *([text] if text else []), f"{tqdm.format_interval(seconds)} left"]
            print(", ".join(parts), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is and begin a new line."""
        self._bar.close()


class Stopwatch:
    """The seconds that each part of a run has taken: `with stopwatch("data"): ...`."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self._start = time.monotonic()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to `part`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] += time.monotonic() - start

    def report(self) -> dict[str, float]:
        """Return the seconds by part, and "total" since the start."""
        return {part: round(s, 3) for part, s in self.seconds.items()} | {"total": round(time.monotonic() - self._start, 3)}


def read_metrics(workdir: Path) -> list[dict]:
    """Return the lines of metrics.jsonl, without those that cannot be read."""
    return _parse_metrics(Path(workdir) / "metrics.jsonl")[0]


def _parse_metrics(file: Path) -> tuple[list[dict], list[bytes]]:
    """Return the rows, and the lines that cannot be read. A last line that a kill cut short is in neither list."""
    rows: list[dict] = []
    damaged: list[bytes] = []
    lines = read_bytes(file, MAX_METRICS_BYTES).split(b"\n") if file.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
            is_sound = isinstance(row, dict) and isinstance(row.get("step"), int)
        except (ValueError, RecursionError):  # The line is not JSON or UTF-8, or is nested too deep.
            is_sound = False
        if is_sound:
            rows.append(row)
        else:
            damaged.append(line)
    return rows, damaged[:-1] if damaged and damaged[-1] == lines[-1] else damaged


def read_results(workdir: Path) -> dict:
    """Return the content of results.json, or {} before the first evaluation."""
    return read_json(Path(workdir) / "results.json")


def refuse_run_folder(workdir: str) -> None:
    """Raise UserError for the folder of a run, because an evaluation would replace the results.json that training wrote."""
    folder = check_workdir(workdir)
    if any((folder / name).exists() for name in ("config.json", "run.json", "metrics.jsonl", "checkpoints")):
        raise UserError(f"{folder} is the folder of a run, and its results.json would be replaced: {OTHER_WORKDIR}")


def _as_recorded(config: ConfigDict) -> ConfigDict:
    return ConfigDict(json.loads(config.to_json()))


def _flag(name: str, value: Any) -> str:
    """Return the flag that gives an option this value, or "" for a value that a flag cannot give."""
    return f": {shlex.quote(f'--config.{name}={value}')}" if isinstance(value, str | int | float) else ""
