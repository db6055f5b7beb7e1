"""Measures the time from the start of train.py to its first step, by phase: `python -m benchmarks.startup demo`, or `B/16`.

Each start is a new process that does one step:

    nothing on disk             a new run; the step is compiled
    compiled programs on disk   the same run in another folder
    a checkpoint too            a run that goes on from its newest checkpoint

The seconds are those of goodput.jsonl. Their total leaves out the saving and the end of the run, which come after the step. The
time that a save keeps the devices waiting is the difference between a run with one save and one with several, which are some
steps apart.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers.process import ROOT
from mixer_jax import app
from mixer_jax.errors import EnvironmentFault
from mixer_jax.text_table import format_table, print_figures
from mixer_jax.validation import bounded

MODELS: dict[str, tuple[int, tuple[str, ...]]] = {
    "demo": (20, ("--config=configs/demo/pretrain.py",)),
    "B/16": (
        1,
        (
            "--config=configs/pretrain_imagenet.py:B/16",
            "--config.data.source=glyphs",
            "--config.data.num_examples=10000",
            "--config.batch_size=8",
            "--config.loader.workers=2",
            "--config.loader.prefetch=8",
        ),
    ),
}
"""By the name of a model: the steps between two saves, which take longer than writing a checkpoint, and the flags of train.py."""

WITHOUT = ("--config.evals=None", "--config.total.epochs=0", "--config.schedule.warmup.steps=0")
SAVES = 6
TO_FIRST_STEP = ("initialization", "restore", "compile", "data", "training")  # The phases in their order.


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("model", choices=MODELS, help="what is trained")
    parser.add_argument("--repeats", type=bounded("in [1, 100]"), default=3, help="starts of each kind; the medians are shown")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.set_defaults(tool=measure)
    return parser


def measure(arguments: argparse.Namespace) -> None:
    """Measure the starts of a model. Raises EnvironmentFault if one fails."""
    kinds: dict[str, list[dict[str, float]]] = {}
    saves = []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory(prefix="startup-") as folder:
            starts, save_seconds = measure_once(arguments.model, Path(folder))
        for kind, seconds in starts.items():
            kinds.setdefault(kind, []).append(seconds)
        saves.append(save_seconds)
    figures = {"seconds": {kind: _medians(starts) for kind, starts in kinds.items()}, "save_seconds": round(_median(saves), 3)}
    print_figures(figures, arguments.json, _format)


def measure_once(model: str, folder: Path) -> tuple[dict[str, dict[str, float]], float]:
    """Return ({kind of start: {phase: seconds}}, the seconds of a save), measured in runs in an empty folder."""
    every, flags = MODELS[model]
    once = (*flags, "--config.total.steps=1")
    first, second = (_start(folder, name, *once) for name in ("first", "second"))
    twice = (*flags, "--config.total.steps=2", "--config.checkpoint.every.steps=1")
    _start(folder, "resumed", *twice)
    shutil.rmtree(folder / "resumed/checkpoints/2")  # As if the run had been killed in its last step.
    resumed = _start(folder, "resumed", *twice)
    saving = _start(
        folder, "several", *flags, f"--config.total.steps={every * SAVES}", f"--config.checkpoint.every.steps={every}"
    )
    starts = {"nothing on disk": first, "compiled programs on disk": second, "a checkpoint too": resumed}
    save_seconds = (saving["checkpoint"] - second["checkpoint"]) / (SAVES - 1)
    return {kind: {phase: seconds.get(phase, 0.0) for phase in TO_FIRST_STEP} for kind, seconds in starts.items()}, save_seconds


def _start(folder: Path, name: str, *flags: str) -> dict[str, float]:
    """Start train.py for the run `name` in a folder, where its caches are too. Return the seconds of the start by phase."""
    command = [sys.executable, "train.py", *flags, *WITHOUT, f"--workdir={folder / name}"]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False).returncode:
        raise EnvironmentFault(f"`{' '.join(command)}` failed. Its message is above.")
    rows = [json.loads(line) for line in (folder / name / "goodput.jsonl").read_text().splitlines()]
    return {row["phase"]: row["seconds"] for row in rows if row["start"] == rows[-1]["start"]}


def _medians(starts: list[dict[str, float]]) -> dict[str, float]:
    """Return the median seconds of several starts by phase, and that of their totals."""
    phases = {phase: round(_median([start[phase] for start in starts]), 2) for phase in TO_FIRST_STEP}
    return phases | {"total": round(_median([sum(start.values()) for start in starts]), 2)}


def _median(numbers: list[float]) -> float:
    return float(statistics.median(numbers))


def _format(figures: Mapping) -> str:
    rows = [["", *next(iter(figures["seconds"].values()))]]
    rows += [[kind, *(f"{number:.2f}" for number in seconds.values())] for kind, seconds in figures["seconds"].items()]
    return f"{format_table(rows)}\nA save keeps the devices waiting for {figures['save_seconds']:.3f} s."


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
