"""Inputs of every kind that lie, as somebody else might send them, and a sound one of each: {reader: {name: builder}}.

Weights have a table of their own: checkpoints/lying_files.py.
"""

from hostile.builders import Build
from hostile.downloads import ARCHIVE, LABELS
from hostile.images import IMAGE
from hostile.predictions import PREDICTIONS
from hostile.prepared import PARTS, SHARDS, TFDS
from hostile.runs import CHECKPOINT, METRICS, RUN

# The first of these does no harm; the others do what no reader of ours does, and the measurement must see it.


def code(text: str) -> Build:
    return lambda folder: (folder / "code.py").write_text(text.format(folder=folder))


TRUSTING = {
    "sound": code("pass"),
    "memory": code("bytearray(400 * 2**20)"),
    "memory of a child": code(
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray(400 * 2**20)'], check=True)"
    ),
    "time": code("import time\nwhile time.process_time() < 5: pass"),
    "canary": code("open('{folder}/canary', 'w')"),
    "traceback": code("1 / 0"),
}

INPUTS: dict[str, dict[str, Build]] = {
    "image": IMAGE, "shards": SHARDS, "parts": PARTS, "tfds": TFDS, "labels": LABELS, "archive": ARCHIVE, "run": RUN,
    "metrics": METRICS, "checkpoint": CHECKPOINT, "predictions": PREDICTIONS, "trusting": TRUSTING,
}  # fmt: skip
