"""Bits of a checkpoint that flip on a disk: none is read as other values."""

import json
import random
import shutil
from pathlib import Path

from programs import start_python

from benchmarks.chaos.trials import Numbers, Trials, end_of

FIGURES = "figures.json"  # The file for the figures of benchmarks.chaos.flipped. Warnings may follow what it prints.


def flip_a_bit(file: Path, rng: random.Random) -> None:
    """Flip a random bit of a file that is not empty."""
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def files_of(step: Path) -> list[Path]:
    """Return the files of a saved step that are not empty."""
    return sorted(file for file in step.rglob("*") if file.is_file() and file.stat().st_size)


def flip_bits(trials: Trials) -> Numbers:
    """Flip bits of the last step of a finished run, one at a time. All but one are read by one process, which costs less.

    With the last bit, the run is resumed by train.py, as if it had been killed before its last evaluation.
    """
    reference = trials.references.get()
    arguments = [reference.workdir, trials.folder, trials.count - 1, trials.seed]
    command = ["-m", "benchmarks.chaos.flipped", *map(str, arguments)]
    end_of(trials.started(start_python(command, 1, **trials.variables)))
    counts = json.loads((trials.folder / FIGURES).read_bytes())

    workdir = shutil.copytree(reference.workdir, trials.folder / "run")
    (workdir / "results.json").unlink()
    newest = max((workdir / "checkpoints").iterdir(), key=lambda step: int(step.name))
    flip_a_bit(trials.random.choice(files_of(newest)), trials.random)
    end_of(trials.start(workdir))
    reference.check((workdir / "results.json").read_bytes(), (workdir / "metrics.jsonl").read_bytes())
    outcome = "passed over" if (workdir / "damaged").exists() else "read with the same values"
    return counts | {outcome: counts.get(outcome, 0) + 1}
