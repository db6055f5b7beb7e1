"""Flips bits of a checkpoint and reads it, in a process of its own: `python -m benchmarks.chaos.flipped RUN FOLDER FLIPS SEED`.

It writes its figures to FOLDER/figures.json, and fails if a value is read that is not the one that was saved.
"""

import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import jax
import numpy as np

from benchmarks.chaos.flips import FIGURES, files_of, flip_a_bit
from mixer_jax import app, parallel
from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.checkpoints.manager import Checkpoints, load_run
from mixer_jax.errors import UserError
from mixer_jax.training.program import make_program
from mixer_jax.training.state import to_items


def read_flipped(run: Path, folder: Path, flips: int, seed: int) -> dict[str, int]:
    """Flip one bit at a time of the last step of a run, and read the run, as a resumed run does and as `load_run` does.

    Return how often the step was read with the same values, and how often an earlier step took its place. The flips go through
    the files of the step in turns.

    Args:
      run: The folder of a finished run. It is not changed.
      folder: A folder for copies of it.
      flips: How many.
      seed: The one of the bits. It also shifts the file to begin with.

    Raises ValueError if a value that is read differs in any bit from what was saved.
    """
    rng, counts = random.Random(seed), Counter()
    steps = sorted(int(step.name) for step in (run / "checkpoints").iterdir())
    shapes = _shapes(run)
    saved = {step: _restore_only(run, folder, step, shapes) for step in steps}
    names = [file.relative_to(run) for file in files_of(run / f"checkpoints/{steps[-1]}")]
    for number in range(flips):
        name = names[(seed * flips + number) % len(names)]
        copy = shutil.copytree(run, folder / "flipped")
        flip_a_bit(copy / name, rng)
        arrays = _load(copy)
        step, items = _restore(copy, shapes)
        if not _same(items, saved[step]):
            raise ValueError(f"flip {number}, in {name}: step {step} was restored with other values")
        if arrays is not None and not any(_same(arrays, named_arrays(tree["ema"])) for tree in saved.values()):
            raise ValueError(f"flip {number}, in {name}: load_run returned other values")
        counts["read with the same values" if step == steps[-1] else "passed over"] += 1
        shutil.rmtree(copy)
    return dict(counts)


def _shapes(run: Path) -> dict:
    """Return the trees of arrays that train.py restores a run of this config to, as shapes on all devices."""
    config = app.read_config(str(run / "config.json"), [])
    program = make_program(config, config.total.steps, config.schedule.warmup.steps)
    return to_items(program.state_shapes(parallel.make_mesh(config.parallel.fsdp)))


def _restore(run: Path, shapes: dict) -> tuple[int, dict]:
    """Return the number and the arrays of the newest step that is sound."""
    items, meta = Checkpoints(str(run), keep=3).restore_latest(shapes)
    return meta["step"], jax.device_get(items)


def _restore_only(run: Path, folder: Path, step: int, shapes: dict) -> dict:
    """Return the arrays of one step of a run."""
    copy = folder / "one-step"
    shutil.copytree(run / f"checkpoints/{step}", copy / f"checkpoints/{step}")
    _, items = _restore(copy, shapes)
    shutil.rmtree(copy)
    return items


def _load(run: Path) -> dict | None:
    """Return the parameters as the readers of runs get them, or None if they are refused."""
    try:
        return load_run(str(run))[0]
    except UserError:
        return None


def _same(left: dict, right: dict) -> bool:
    """Return whether two trees have the same arrays, in every bit."""
    one, other = named_arrays(left), named_arrays(right)
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes()
        for name in one
    )


if __name__ == "__main__":
    run, folder, flips, seed = sys.argv[1:]
    counts = read_flipped(Path(run), Path(folder), int(flips), int(seed))
    (Path(folder) / FIGURES).write_text(json.dumps(counts))
