"""Miniatures of the paper's data sets, as TFDS prepares them, and the file that says where they lie."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

from mixer_jax import app
from mixer_jax.reproduction.fine_tuning import AVG5_TASKS, VTAB_TASKS

SIDE = 16  # pixels
EXAMPLES = 100  # One of them is the 1 % that the paper holds out of ImageNet.
FEW = {"few_train": 50, "few_test": 20}  # Splits of ImageNet with 10 classes, so that there are 5 images of each.
SETS = {"imagenet2012_real": "real_label", "jft300m": "labels", "jft3b": "labels"}  # These have a set of labels for each image.
CLASSES = {"imagenet2012_real": 1000, "imagenet21k": 21_843, "jft300m": 18_291, "jft3b": 30_000}
SPLITS = {  # {source: {split in the configs: split here}}
    "tfds:imagenet2012": '{"train[:65000]" = "few_train"}',
    "tfds:jft300m": '{"train[:3%]" = "train[:20%]", "train[99%:]" = "train[80%:]"}',
    "tfds:imagenet21k": '{"train[51200:]" = "train[20:]", "train[:51200]" = "train[:20]"}',
    "vtab": '{train800 = "train[:80%]", val200 = "train[80%:]", train800val200 = "train"}',
}
VALIDATION = ("imagenet2012", "imagenet2012_real", "oxford_flowers102")


def make_all(directory: Path) -> Path:
    """Make all data sets of the tables and figures in `directory`, and return the file for --data-locations."""
    tasks = {name: app.read_config(f"configs/finetune.py:{name}", []) for name in AVG5_TASKS}
    classes = CLASSES | {config.data.source.removeprefix("tfds:"): config.num_classes for config in tasks.values()}
    sources = {f"tfds:{name}": name for name in classes}
    for task in VTAB_TASKS:
        count = app.read_config(f"configs/finetune_vtab.py:{task}", []).num_classes
        classes[f"vtab{count}"], sources[f"vtab:{task}"] = count, f"vtab{count}"
    for name, count in classes.items():
        splits = {"train": EXAMPLES, "test": 20} | ({"validation": EXAMPLES} if name in VALIDATION else {})
        splits |= FEW if name == "imagenet2012" else {}
        _make(directory, name, count, splits)
    tables = [
        f'["{source}"]\nsource = "tfds:small_{name}"\ndata_dir = "{directory}"\n'
        + f"splits = {SPLITS.get(source, SPLITS['vtab'] if source.startswith('vtab') else '{}')}\n"
        for source, name in sources.items()
    ]
    file = directory / "locations.toml"
    file.write_text("\n".join(tables))
    return file


def _make(directory: Path, name: str, num_classes: int, splits: Mapping[str, int]) -> None:
    """Prepare small_NAME, a data set of gray images with labels in turns."""
    label = tfds.features.ClassLabel(num_classes=num_classes)
    key = SETS.get(name, "label")
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        key: tfds.features.Sequence(label) if name in SETS else label,
    }

    class Miniature(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None  # It downloads nothing.

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(count, split in FEW) for split, count in splits.items()}

        def _generate_examples(self, count, is_few):
            for number in range(count):
                png = cv2.imencode(".png", np.full((SIDE, SIDE, 3), number % 256, np.uint8))[1].tobytes()
                label = number % (10 if is_few else num_classes)
                yield number, {"image": png, key: [label] if name in SETS else label}

    Miniature.name = f"small_{name}"
    Miniature(data_dir=directory, file_format="array_record").download_and_prepare()
