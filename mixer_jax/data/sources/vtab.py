"""The source `vtab:TASK`: VTAB-1k (Zhai et al., arXiv 1910.04867), 19 tasks of 1000 training images each.

The tasks use datasets that TFDS prepared. Each has the splits train800, val200, train800val200 and test. The choice of images
and the definition of labels follow the authors' code (github.com/google-research/task_adaptation, task_adaptation/data). train800
is the first 800 images of TFDS's "train". val200, which is for choosing hyper-parameters, is the first 200 images of that code's
validation set. The test sets are complete. The numbers in the slices follow from the sizes of TFDS's splits: for example, 90 % of
caltech101's 3060 training images are 2754.

We do not know whether TFDS's images are still in the order that they had for the paper. TFDS orders them by a hash of their
names, so the order should be the same if the names have not changed.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mixer_jax.data.images.decode import decode
from mixer_jax.data.sources.source import Record
from mixer_jax.data.sources.tfds import Examples
from mixer_jax.data.sources.tfds_copy import copy_dataset
from mixer_jax.errors import UserError

SPLITS = ("train800", "val200", "train800val200", "test")
MAX_PIXELS = 2**20  # This is for the images of dSprites, which have 64 x 64 pixels.


class Task(NamedTuple):
    """One task of VTAB-1k.

    Attributes:
      dataset: the name of the dataset in TFDS.
      val200: the slice of TFDS's splits for val200.
      test: the split of TFDS, or a slice, for test.
      num_classes: the number of classes.
      features: the features from which the label is computed, as `tfds.Examples` takes them.
      label: the function from these features to the label.
      black_and_white: whether the pixels of an image are 0 and 1, instead of 0 to 255.
    """

    dataset: str
    val200: str
    test: str
    num_classes: int
    features: dict
    label: Callable[[dict], int]
    black_and_white: bool = False


def _clevr_count(example: dict) -> int:
    """Return the number of objects in a scene minus 3. A scene has 3 to 10 objects."""
    return len(example["objects"]["size"]) - 3


def _clevr_distance(example: dict) -> int:
    """Return the interval of the distance between the camera and the nearest object: up to 8, to 8.5, ..., to 10, or beyond."""
    distances = np.array(example["objects"]["pixel_coords"])[:, 2]
    return int(np.searchsorted([8.0, 8.5, 9.0, 9.5, 10.0], np.min(distances)))


def _kitti_distance(example: dict) -> int:
    """Return the interval of the distance to the nearest vehicle (car, van or truck): up to 8 m, to 20 m, beyond, or none."""
    objects = zip(example["objects"]["type"], example["objects"]["location"], strict=True)
    nearest = min([location[2] for kind, location in objects if kind < 3], default=1000.0)
    return int(np.searchsorted([8.0, 20.0, 999.0], nearest))


def _attribute(name: str, per_class: float = 1) -> tuple[dict, Callable[[dict], int]]:
    """Return (features, function of the label) for a label that is a feature; `per_class` neighboring values make one class."""
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
    # specialized
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
    """The source `vtab:TASK`."""

    max_labels = 1

    def __init__(self, name: str, split: str, data_dir: str, local_copy: str = ""):
        """Open a split of a task. Its dataset is first copied if it lies in a bucket (see `copy_dataset` about `local_copy`)."""
        if name not in TASKS:
            raise UserError(f"VTAB has no task {name!r}: it has {', '.join(TASKS)}.")
        self._task = task = TASKS[name]
        if split not in SPLITS:
            raise UserError(f"vtab:{name} has no split {split!r}: it has {', '.join(SPLITS)}.")
        slices = ("train[:800]", task.val200, f"train[:800]+{task.val200}", task.test)
        splits = dict(zip(SPLITS, slices, strict=True))
        data_dir = copy_dataset(task.dataset, splits[split], data_dir, local_copy)
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
        """Return the label of a record. This reads the whole record, including the image."""
        return (self._task.label(self._examples[index]),)

    def locate(self, index: int) -> str:
        """Return the task, the split and the number of a record."""
        return f"{self._name} record {index}"

    def key(self, index: int) -> str:
        """Return the number of a record."""
        return str(index)

    def identity(self) -> str:
        """Return the name of the dataset, with its config and version."""
        return self._examples.full_name
