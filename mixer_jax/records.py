"""The records of a run: its folder, metrics, results and progress. Nothing here touches a device.

WORKDIR/config.json        every option of the run; a resumed run is compared with it
WORKDIR/run.json           a record for each start: command, versions, git commit, machine
WORKDIR/metrics.jsonl      a line every `log_every_steps`, and one for every evaluation: {"step": ..., name: number, ...}
WORKDIR/tensorboard/       the same numbers as TensorBoard events
WORKDIR/trackers.json      the run in a tracker such as Weights & Biases, with config.tracker, and what it has got (trackers.py)
WORKDIR/results.json       the last evaluation: step, params_sha256, evals, seconds by phase (stopwatch.py)
WORKDIR/predictions/       NAME.parquet: the predictions for each example of the last evaluation by the evaluator NAME
WORKDIR/best.json          the best checkpoint, with config.checkpoint.best: figure, value, step, checkpoint
WORKDIR/goodput.jsonl      where the time of the run went, by start and phase (supervision/goodput.py)
WORKDIR/hosts/             HOST.json: the sign of life of each host (supervision/heartbeat.py)
WORKDIR/stalled/           the stacks of all threads of a host in which nothing went on (supervision/watchdog.py)
WORKDIR/checkpoints/       a folder for each saved step
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from mixer_jax.storage import json_text, naming, open_storage, read_json, refuse_links, write_whole
from mixer_jax.tensorboard import TensorBoard, numbers
from mixer_jax.trackers import Ending, Tracker

PREDICTIONS = "predictions"  # A folder in the run's folder, and an entry of results.json.
SECONDS_BETWEEN_LINES = 60  # Between two lines of progress without a text, where there is no terminal.
MAX_METRICS_BYTES = 2**30  # About ten million lines.


def predictions_file(workdir: Path, evaluator: str) -> Path:
    """Return the file of the predictions of an evaluator in a run's folder."""
    return workdir / PREDICTIONS / f"{evaluator}.parquet"


def start_line(config: ConfigDict, facts: dict, workdir: str) -> str:
    """Return a line that says what runs where. `facts` has devices, processes, parameters, first_step and total_steps."""
    model = f"{config.model.family} {config.model.variant}, {facts['parameters'] / 1e6:.3g} million parameters"
    machines = f"{facts['devices']} x {facts['device_kind']}, {facts['processes']} x host"
    steps = f"steps {facts['first_step'] + 1} to {facts['total_steps']} of {config.batch_size} images"
    return f"{model}, on {machines}: {steps}, into {workdir}"


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
        rows, damaged = _read_metrics(workdir)
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


def read_metrics(workdir: Path | str) -> list[dict]:
    """Return the lines of a run's metrics.jsonl, without those that cannot be read. The run may lie in gs://BUCKET/RUN."""
    return _read_metrics(workdir)[0]


def _read_metrics(workdir: Path | str) -> tuple[list[dict], list[bytes]]:
    """Return the rows, and the lines that cannot be read. A last line that a kill cut short is in neither list."""
    rows: list[dict] = []
    damaged: list[bytes] = []
    content = open_storage(str(workdir)).read_whole("metrics.jsonl", MAX_METRICS_BYTES) or b""
    lines = content.split(b"\n")
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
