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
    wanted = (f"{Path(file).stem} {row}", TOPOLOGY, "")
    rows = [line for line in recorded_table("fit")["rows"] if (line["config"], line["topology"], line["overrides"]) == wanted]
    return rows[0] if rows else None


@functools.cache
def recorded_table(name: str) -> dict:
    """Return the table "fit", "speed" or "throughput": {"estimated_by": versions, "rows": [...]}."""
    return read_json(RECORDED / f"{name}.json")
