"""The recorded tables of estimates (benchmarks/planning/recorded), which `python -m benchmarks.planning` makes."""

import functools
from pathlib import Path

from mixer_jax import app
from mixer_jax.storage import read_json

RECORDED = app.ROOT / "benchmarks/planning/recorded"
TOPOLOGY = "v3:8x8"  # Its devices are cores of TPU v3, in which the paper counts.


def recorded_pretraining(config_file: str) -> dict | None:
    """Return the recorded estimate of a pre-training on cores of TPU v3, or None. `config_file` is FILE.py:ROW."""
    file, _, row = config_file.partition(":")
    return _found("fit", config=f"{Path(file).stem} {row}", topology=TOPOLOGY, overrides="")


def recorded_fine_tuning(model: str, pixels: int) -> dict | None:
    """Return the recorded estimate of a fine-tuning on ImageNet on cores of TPU v3, or None. `model` is such as Mixer-B/16."""
    return _found("fine_tuning", model=model, pixels=pixels)


def recorded_throughput(family: str, variant: str, pixels: int) -> dict | None:
    """Return the recorded estimate of inference on a core of TPU v3, or None."""
    return _found("throughput", model=f"{family} {variant}", pixels=pixels)


def _found(name: str, **wanted: object) -> dict | None:
    """Return the row of a table that has these values and whose program fits into memory, or None."""
    rows = [row for row in recorded_table(name)["rows"] if wanted.items() <= row.items() and row.get("fits", True)]
    return rows[0] if rows else None


@functools.cache
def recorded_table(name: str) -> dict:
    """Return a table by its name in benchmarks/planning/tables.py: {"estimated_by": versions, "rows": [...]}."""
    return read_json(RECORDED / f"{name}.json")
