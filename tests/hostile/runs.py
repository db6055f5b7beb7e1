"""A run's folder, and its checkpoints."""

import json
import os
import shutil
import struct
from pathlib import Path

import jax.numpy as jnp
from hostile.builders import MEBIBYTE, Build, after, endless, written
from preparation.miniature import jpeg, make_tree

from mixer_jax.checkpoints.manager import Checkpoints, _seal
from mixer_jax.config import dataset, default_config


def run_folder(folder: Path) -> None:
    config = default_config()
    config.data = dataset("digits", "train")
    start = {"time": "2026-01-01 00:00:00 UTC", "command": "train.py", "git_commit": "a", "python": "3.11", "versions": {}}
    start |= {"host": "here", "first_step": 0, "total_steps": 4, "parameters": 12, "platform": "cpu", "device_kind": "cpu"}
    (folder / "config.json").write_text(config.to_json())
    (folder / "run.json").write_text(json.dumps({"starts": [start | {"devices": 1}]}))
    (folder / "results.json").write_text(json.dumps({"step": 4, "evals": {"test": {"top1": 0.5}}}))
    (folder / "metrics.jsonl").write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 0.5, "test/top1": 0.5}\n')


def private_pictures(folder: Path) -> None:
    """Name a folder of pictures that the person who makes a page has not named."""
    make_tree(folder / "private", {"a/canary.jpg": jpeg(0), "b/canary.jpg": jpeg(1)})
    content = json.loads((folder / "config.json").read_text())
    content["data"] |= {"source": f"folder:{folder / 'private'}", "split": ""}
    (folder / "config.json").write_text(json.dumps(content))


def many_metrics() -> bytes:
    rows = ({"step": step, f"{step}/top1": 0.5} for step in range(20_000))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def many_starts() -> bytes:
    rows = ({"start": n, "phase": "data", "seconds": 1, "began": n, "ended": n + 1} for n in range(30_000))
    return "".join(json.dumps(row | {"first_step": 0, "last_step": 0, "ending": "done"}) + "\n" for row in rows).encode()


RUN = after(
    run_folder,
    {
        "private pictures": private_pictures,
        "metrics of very many names": written("metrics.jsonl", many_metrics),
        "evaluators without end": written(
            "results.json", lambda: json.dumps({"step": 4, "evals": {f"e{n}": {"top1": 0.1} for n in range(20_000)}}).encode()
        ),
        "a deep config": written("config.json", lambda: b'{"data":' + b"[" * 10**6),
        "a line of 64 MB": written("metrics.jsonl", lambda: b'{"step": 2, "x": "' + b"y" * 2**26 + b'"}\n'),
        **endless("config.json"),
        **endless("run.json"),
        **endless("results.json"),
        **endless("metrics.jsonl"),
        "very many starts": written("goodput.jsonl", many_starts),
        "a line of starts of 3 MB": written("goodput.jsonl", lambda: b'{"start": "' + b"y" * 3 * MEBIBYTE + b'"}'),
        "a deep line of starts": written("goodput.jsonl", lambda: b"[" * 10**6),
        **endless("goodput.jsonl"),
    },
)
METRICS = after(
    run_folder,
    endless("metrics.jsonl")
    | {name: build for name, build in endless("tensorboard/events.out").items() if "flood" not in name}
    | {"an event of 2^60 bytes": written("tensorboard/events.out", lambda: struct.pack("<QI", 2**60, 0) + bytes(2**24))},
)


def checkpoint(folder: Path) -> None:
    run_folder(folder)
    checkpoints = Checkpoints(str(folder), keep=2)
    checkpoints.save(4, {"params": {"w": jnp.arange(12.0).reshape(3, 4)}}, {"step": 4, "data": {}})
    checkpoints.finish()


def checkpoint_of_zeros(folder: Path) -> None:
    checkpoints = Checkpoints(str(folder), keep=2)
    checkpoints.save(4, {"params": {"w": jnp.zeros((100 * MEBIBYTE,))}}, {"step": 4, "data": {}})
    checkpoints.finish()


def described(**changes) -> Build:
    """Return a builder that changes what a checkpoint says of itself, and seals it."""

    def build(folder: Path) -> None:
        file = folder / "checkpoints/4/meta/metadata"
        meta = json.loads(json.loads(file.read_text())["content"])
        meta["arrays"]["params"]["w"] |= changes
        file.write_text(json.dumps(_seal(meta)))

    return build


def first_data_file(folder: Path) -> str:
    return str(next(file for file in sorted(folder.rglob("d/*"))).relative_to(folder))


def params_behind_a_link(folder: Path) -> None:
    """Put a link in the place of a folder, to one with a pipe."""
    params = folder / "checkpoints/4/params"
    shutil.move(params, folder / "elsewhere")
    (folder / "elsewhere/_METADATA").unlink()
    os.mkfifo(folder / "elsewhere/_METADATA")
    params.symlink_to(folder / "elsewhere")


def broken_link_and_pipe(folder: Path) -> None:
    """Put a link to nowhere before a file that is a pipe, in the order of names."""
    (folder / "checkpoints/4/A").symlink_to("nowhere")
    (folder / "checkpoints/4/_CHECKPOINT_METADATA").unlink()
    os.mkfifo(folder / "checkpoints/4/_CHECKPOINT_METADATA")


def data_behind(kind: str) -> Build:
    return lambda folder: endless(first_data_file(folder))[f"{first_data_file(folder)}: {kind}"](folder)


CHECKPOINT = {
    "of zeros": checkpoint_of_zeros,
    **after(
        checkpoint,
        {
            "said to be large": described(shape=[2**31 - 1, 16]),
            "said to be deep": described(shape=[1] * 2000),
            "said to be of objects": described(dtype="object"),
            "a deep description": written("checkpoints/4/meta/metadata", lambda: b"[" * 10**6),
            "data behind a pipe": data_behind("pipe"),
            "a folder behind a link": params_behind_a_link,
            "a link to nowhere, and a pipe": broken_link_and_pipe,
            "data behind a device": data_behind("device"),
            **endless("checkpoints/4/meta/metadata"),
            **endless("checkpoints/4/_CHECKPOINT_METADATA"),
            **endless("checkpoints/4/params/_METADATA"),
            **endless("checkpoints/4/params/manifest.ocdbt"),
            **endless("config.json"),
        },
    ),
}
