"""What a run writes for people and tools: its folder, metrics, results and the progress line. No device is touched here.

WORKDIR/config.json        the resolved config; what a resumed run is compared with
WORKDIR/run.json           versions, git commit, machine and command of every start
WORKDIR/metrics.jsonl      a line every `log_every_steps`, and one for every evaluation: {"step": ..., name: number, ...}
WORKDIR/tensorboard/       the same numbers
WORKDIR/results.json       the last evaluation: step, params_sha256, evals, seconds by part
WORKDIR/best.json          with config.checkpoint.best: figure, value, step and checkpoint (checkpoints/best.py)
WORKDIR/checkpoints/       see checkpoints/manager.py
"""

import json
import os
import platform
import shlex
import sys
import time
from collections import defaultdict
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

OTHER_WORKDIR = "choose another --workdir."
SECONDS_BETWEEN_LINES = 60  # of progress, where there is no terminal
MAX_METRICS_BYTES = 2**30  # ten million lines
TRAIN_ON = (
    "\nA schedule that decays ends at config.total, so with another length every step would be another: only a run with "
    "schedule.decay=constant can be made longer. To train on from here, start a new run with another --workdir and "
    "--config.init_from={} --config.init_head=restore."
)


class Workdir:
    """A run's folder, held by this process until it ends: a second run in it is refused.

    All hosts of a pod name the same folder, on a disk they share; the one that is not the `writer` neither locks nor writes.
    `lock` is a file in it that names the `owner`; this is None where the process is not the writer. Raises EnvironmentFault while
    another process has the folder.
    """

    def __init__(self, path: str, writer: bool = True):
        self.path = check_workdir(path)
        self._writer = writer
        self.lock = self.path / ".lock"
        self._lease = self._take() if writer else None
        self.owner = self._lease.owner if self._lease else None

    def _take(self) -> Lease:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            return Lease(self.lock)
        except HeldError as error:
            raise EnvironmentFault(
                f"{self.path} is in use by {error}. Wait for it, stop it, or choose another --workdir."
            ) from error

    def refuse_other_run(self, config: ConfigDict) -> None:
        """Raise UserError if the folder's run has another config, naming the options that change what a run computes.

        So it does where the folder has the results of an evaluation alone: training would replace them.
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
        """Print where the training data lay before and lie now. They have been found to be the same."""
        before = self._read_config() if self._writer else None
        moved = moved_data(before, _as_recorded(config)) if before is not None else {}
        for name, (then, now) in moved.items():
            print(f"config.{name} is {now} now, and was {then}: the records are the same, so the run goes on.")

    def _read_config(self) -> ConfigDict | None:
        """Return the config of the run in the folder, None where there is no run."""
        file = self.path / "config.json"
        return recorded_config(read_json(file)) if file.exists() else None

    def record_start(self, config: ConfigDict, facts: dict) -> None:
        """Writes config.json; appends this start to run.json: command, versions, git commit, `facts` on devices and model."""
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
        """Write results.json. Figures of other evaluators stay in it if they are of the same step and parameters."""
        if not self._writer:
            return
        before = read_results(self.path)
        if all(before.get(name) == results[name] for name in ("step", "params_sha256")):
            results = results | {part: before.get(part, {}) | results[part] for part in ("evals", "evaluators")}
        write_json(self.path / "results.json", results)

    def replaced_by(self, results: dict) -> str:
        """Return a line that says which results `add_results` would replace, "" where there are none of other parameters."""
        before = read_results(self.path) if self._writer else {}
        if before.get("params_sha256") in (None, results["params_sha256"]):
            return ""
        return (
            f"{self.path / 'results.json'} had the figures of {before.get('checkpoint', 'other parameters')}: these replace them."
        )

    def has_results(self, step: int) -> bool:
        """Whether results.json is of this step."""
        return self._writer and read_results(self.path).get("step") == step

    def has_figures(self, step: int, evaluator: str, description: dict) -> bool:
        """Whether results.json has the figures of an evaluator of this name and description at this step."""
        results = read_results(self.path)
        described = results.get("evaluators", {}).get(evaluator, description)  # results before 2026-12 do not describe them
        return self.has_results(step) and evaluator in results.get("evals", {}) and described == description


def check_workdir(path: str) -> Path:
    """Return the whole path of a run's folder. Raises UserError where, by what is there now, none can be made or written in."""
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
    """Return what runs where, in a line; `facts` are those of `Workdir.record_start`."""
    model = f"{config.model.family} {config.model.variant}, {facts['parameters'] / 1e6:.3g} million parameters"
    machines = f"{facts['devices']} x {facts['device_kind']}, {facts['processes']} x host"
    steps = f"steps {facts['first_step'] + 1} to {facts['total_steps']} of {config.batch_size} images"
    return f"{model}, on {machines}: {steps}, into {workdir}"


def _is_utf8(name: str) -> bool:
    """Return whether a name has no byte that the locale's encoding could not read."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


class MetricWriter:
    """metrics.jsonl and TensorBoard events of one run. Lines after `from_step` are dropped: a resumed run writes them again."""

    def __init__(self, workdir: Path, from_step: int, writer: bool = True):
        self._workdir, self._writer = workdir, writer
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
        self._tensorboard = TensorBoard(workdir / "tensorboard", from_step, kept)

    def write(self, step: int, values: dict[str, float | None]) -> None:
        if not self._writer:
            return
        with naming(self._file), open(self._file, "a") as file:
            file.write(json_text({"step": step} | values) + "\n")
        self._tensorboard.write(step, numbers(values))

    def evaluated(self, step: int, evaluator: str) -> bool:
        """Whether figures of an evaluator at `step` have been written."""
        return any(name.startswith(f"{evaluator}/") for name in self._read_step(step))

    def values(self, name: str) -> dict[int, float | None]:
        """Return the numbers of this name by step; {} where this process is not the writer."""
        rows = read_metrics(self._workdir) if self._writer else []
        return {row["step"]: row[name] for row in rows if name in row}

    def write_evals(self, step: int, evals: dict[str, dict]) -> None:
        """Write figures of evaluators as NAME/FIGURE, without those that an earlier start has written.

        Lists stay in results.json alone.
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
        """Return all numbers of a step that are written, the later ones where a name has several."""
        rows = read_metrics(self._workdir) if self._writer else []
        return {name: value for row in rows if row["step"] == step for name, value in row.items()}

    def close(self) -> None:
        if self._writer:
            self._tensorboard.close()


class Progress:
    """How far some work is and the time left: a bar on a terminal, otherwise plain lines on standard error.

    A line is printed for each text, and about once a minute without one.
    """

    def __init__(self, total: int, first: int, unit: str = "step"):
        """Begin with `first` of `total` units done."""
        self._is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=first, unit=unit, disable=not self._is_terminal, dynamic_ncols=True)
        self._total, self._first, self._unit = total, first, unit
        self._start = self._last_line = time.monotonic()

    def update(self, done: int, text: str | None = None) -> None:
        """Say that `done` units are done, and `text` about them."""
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
        """Leave the bar as it is."""
        self._bar.close()


class Stopwatch:
    """Seconds spent by part of a run: `with stopwatch("data"): ...`."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self._start = time.monotonic()

    @contextmanager
    def __call__(self, part: str):
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] += time.monotonic() - start

    def report(self) -> dict[str, float]:
        """Seconds by part, and "total" since the start."""
        return {part: round(s, 3) for part, s in self.seconds.items()} | {"total": round(time.monotonic() - self._start, 3)}


def read_metrics(workdir: Path) -> list[dict]:
    """Return the lines of metrics.jsonl, without those that cannot be read."""
    return _parse_metrics(Path(workdir) / "metrics.jsonl")[0]


def _parse_metrics(file: Path) -> tuple[list[dict], list[bytes]]:
    """Return (rows, lines that are none). A last line that a kill cut short is in neither."""
    rows: list[dict] = []
    damaged: list[bytes] = []
    lines = read_bytes(file, MAX_METRICS_BYTES).split(b"\n") if file.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
            is_sound = isinstance(row, dict) and isinstance(row.get("step"), int)
        except (ValueError, RecursionError):  # no JSON, no UTF-8, or nested too deep
            is_sound = False
        if is_sound:
            rows.append(row)
        else:
            damaged.append(line)
    return rows, damaged[:-1] if damaged and damaged[-1] == lines[-1] else damaged


def read_results(workdir: Path) -> dict:
    """results.json, or {} before the first evaluation."""
    return read_json(Path(workdir) / "results.json")


def refuse_run_folder(workdir: str) -> None:
    """Raise UserError for the folder of a run: an evaluation would replace what training wrote in its results.json."""
    folder = check_workdir(workdir)
    if any((folder / name).exists() for name in ("config.json", "run.json", "metrics.jsonl", "checkpoints")):
        raise UserError(f"{folder} is the folder of a run, and its results.json would be replaced: {OTHER_WORKDIR}")


def _as_recorded(config: ConfigDict) -> ConfigDict:
    return ConfigDict(json.loads(config.to_json()))


def _flag(name: str, value: Any) -> str:
    """Return what to type for an option to have this value; nothing for a value that a flag cannot give."""
    return f": {shlex.quote(f'--config.{name}={value}')}" if isinstance(value, str | int | float) else ""
