"""How the project reads each kind of input, as functions of a path, for costs.py."""

import itertools
from pathlib import Path

import numpy as np

from mixer_jax.checkpoints.files import read_arrays
from mixer_jax.checkpoints.manager import load_run
from mixer_jax.data.images.augment import eval_transform
from mixer_jax.data.images.decode import decode
from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.data.sources.shards import ShardReader
from mixer_jax.data.sources.tfds import TfdsSource
from mixer_jax.evaluation.example_predictions import read_predictions
from mixer_jax.preparation.cifar import CifarInputs
from mixer_jax.preparation.join import join
from mixer_jax.preparation.label_files import read_label_file
from mixer_jax.preparation.listing import list_files
from mixer_jax.records import MetricWriter
from mixer_jax.report.page import report_runs

MAX_PIXELS = 2**27


def weights(path: Path) -> None:
    read_arrays(str(path))


def checkpoint(path: Path) -> None:
    load_run(str(path))


def image(path: Path) -> None:
    """Read the first image of a folder of classes."""
    eval_transform("small", 256, 224)(decode(FolderSource(str(path), "")[0].image, MAX_PIXELS), None)


def shards(path: Path) -> None:
    reader = ShardReader(path, "full")
    reader.read(0), reader.labels(0)


def parts(path: Path) -> None:
    join(path / "train", 1)


def tfds(path: Path) -> None:
    TfdsSource("tiny", "train", str(path), 1)[0]


def labels(path: Path) -> None:
    """Read the one file of labels in a folder, of two images."""
    file = next(file for file in path.iterdir() if not file.name.startswith("setid"))
    read_label_file(str(file), ["image_00001.jpg", "image_00002.jpg"], "", "train")


def archive(path: Path) -> None:
    """List KIND.anything in a folder as --from KIND: does, and read it all."""
    for file in path.iterdir():
        kind = file.name.partition(".")[0]
        if kind == "cifar":
            inputs = CifarInputs(file, "train")
            return list(inputs.read(range(len(inputs))))
        files, _ = list_files(kind, file, "")
        for _ in itertools.islice(files.read(range(len(files.names))), 10):
            pass


def metrics(path: Path) -> None:
    MetricWriter(path, 0)


def predictions(path: Path) -> None:
    read_predictions(path / "dev.parquet")


def run(path: Path) -> None:
    report_runs([path], path.parent / f"{path.name}.html", pictures=False)


def trusted_weights(path: Path) -> None:
    with np.load(path) as file:
        dict(file)


def trusting(path: Path) -> None:
    """Do what no reader of ours may: run what a file holds, take the memory that it asks for, and take long."""
    exec((path / "code.py").read_text())
