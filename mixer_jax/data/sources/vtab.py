"""VTAB-1k (Zhai et al., arXiv 1910.04867): 19 tasks of 1000 training images each, on datasets that TFDS prepared.

`vtab:TASK` has the splits train800, val200, train800val200 and test. Which images these are and how a label comes about is as in
the authors' code (github.com/google-research/task_adaptation, task_adaptation/data): the first 800 of "train" and, for a choice
of hyper-parameters, 200 from where that code's validation set begins; the test sets are whole. The numbers in the slices follow
from the sizes of TFDS's splits: 90 % of caltech101's 3060 training images are 2754, and so on. That TFDS's images come in the
order that they came in then is not known to us: it orders by a hash of names, so they should where names have not changed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mixer_jax.data.images.decode import decode
from mixer_jax.data.sources.source import Record
from mixer_jax.data.sources.tfds import Examples
from mixer_jax.errors import UserError

SPLITS = ("train800", "val200", "train800val200", "test")
MAX_PIXELS = 2**20  # dSprites: 64 x 64


class Task(NamedTuple):
    dataset: str  # of TFDS
    val200: str  # TFDS's split
    test: str
    num_classes: int
    features: dict  # that the label is made of, as tfds.Examples takes them
    label: Callable[[dict], int]
    black_and_white: bool = False  # pixels are 0 and 1


def _clevr_count(example: dict) -> int:
    """A scene has 3 to 10 objects."""
    return len(example["objects"]["size"]) - 3


def _clevr_distance(example: dict) -> int:
    """The nearest object's distance from the camera, below 8, 8.5, ..., 10 or beyond: a class for each interval."""
    distances = np.array(example["objects"]["pixel_coords"])[:, 2]
    return int(np.searchsorted([8.0, 8.5, 9.0, 9.5, 10.0], np.min(distances)))


def _kitti_distance(example: dict) -> int:
    """Metres to the nearest vehicle (types car, van, truck): up to 8, to 20, farther, or 3 for none."""
    objects = zip(example["objects"]["type"], example["objects"]["location"], strict=True)
    nearest = min([location[2] for kind, location in objects if kind < 3], default=1000.0)
    return int(np.searchsorted([8.0, 20.0, 999.0], nearest))


def _attribute(name: str, per_class: float = 1) -> tuple[dict, Callable[[dict], int]]:
    """A label of TFDS, `per_class` neighbouring values of which make a class."""
    return {name: True}, lambda example: int(example[name] // per_class)


LABEL = _attribute("label")
SCENE = {"objects": ("size",)}, _clevr_count
NEAREST = {"objects": ("pixel_coords",)}, _clevr_distance
VEHICLES = {"objects": ("type", "location")}, _kitti_distance
DSPRITES = "dsprites", "train[589824:590024]", "train[663552:]", 16

TASKS = {
    # natural
    "caltech101": Task("caltech101", "train[2754:2954]", "test", 102, *LABEL),
    "cifar100": Task("cifar100", "train[45000:45200]", "test", 100, *LABEL),
    "dtd": Task("dtd", "validation[:200]", "test", 47, *LABEL),
    "flowers": Task("oxford_flowers102", "validation[:200]", "test", 102, *LABEL),
    "pets": Task("oxford_iiit_pet", "train[2944:3144]", "test", 37, *LABEL),
    "sun397": Task("sun397/tfds", "validation[:200]", "test", 397, *LABEL),
    "svhn": Task("svhn_cropped", "train[65931:66131]", "test", 10, *LABEL),
    # specialised
    "patch_camelyon": Task("patch_camelyon", "validation[:200]", "test", 2, *LABEL),
    "eurosat": Task("eurosat/rgb", "train[16200:16400]", "train[21600:]", 10, *LABEL),
    "resisc45": Task("resisc45", "train[18900:19100]", "train[25200:]", 45, *LABEL),
    "retinopathy": Task("diabetic_retinopathy_detection/btgraham-300", "validation[:200]", "test", 5, *LABEL),
    # structured
    "clevr_count": Task("clevr", "train[63000:63200]", "validation", 8, *SCENE),
    "clevr_distance": Task("clevr", "train[63000:63200]", "validation", 6, *NEAREST),
    "dmlab": Task("dmlab", "validation[:200]", "test", 6, *LABEL),
    "kitti_distance": Task("kitti", "validation[:200]", "test", 4, *VEHICLES),
    "dsprites_location": Task(*DSPRITES, *_attribute("label_x_position", 2), black_and_white=True),
    "dsprites_orientation": Task(*DSPRITES, *_attribute("label_orientation", 2.5), black_and_white=True),
    "smallnorb_azimuth": Task("smallnorb", "test[:200]", "test[50%:]", 18, *_attribute("label_azimuth")),
    "smallnorb_elevation": Task("smallnorb", "test[:200]", "test[50%:]", 9, *_attribute("label_elevation")),
}


class VtabSource:
    """`vtab:TASK`: see above."""

    max_labels = 1

    def __init__(self, name: str, split: str, data_dir: str):
        if name not in TASKS:
            raise UserError(f"VTAB has no task {name!r}: it has {', '.join(TASKS)}.")
        self._task = task = TASKS[name]
        if split not in SPLITS:
            raise UserError(f"vtab:{name} has no split {split!r}: it has {', '.join(SPLITS)}.")
        slices = ("train[:800]", task.val200, f"train[:800]+{task.val200}", task.test)
        splits = dict(zip(SPLITS, slices, strict=True))
        self._examples = Examples(task.dataset, splits[split], data_dir, {"image": True} | task.features)
        self._name = f"vtab:{name} {split}"
        self.num_classes, self.class_names = task.num_classes, tuple(map(str, range(task.num_classes)))

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        example = self._examples[index]
        image = example["image"]
        if self._task.black_and_white:
            image = decode(image, MAX_PIXELS) * np.uint8(255)
        return Record(image, (self._task.label(example),))

    def labels(self, index: int) -> tuple[int, ...]:
        return (self._task.label(self._examples[index]),)

    def locate(self, index: int) -> str:
        return f"{self._name} record {index}"

    def identity(self) -> str:
        return self._examples.full_name
