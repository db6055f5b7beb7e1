"""VTAB-1k: every task opens on data with TFDS's own features, with the authors' splits and labels."""

import runpy
import sys

import numpy as np
import pytest
from conftest import ROOT
from data import tfds_miniature

from mixer_jax.config import dataset
from mixer_jax.data.images.decode import decode
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.vtab import TASKS
from mixer_jax.errors import UserError
from mixer_jax.validation import validate

# Images of each split, from TFDS's catalogue.
SIZES = {
    "caltech101": {"train": 3060, "test": 6084},
    "cifar100": {"train": 50_000, "test": 10_000},
    "clevr": {"train": 70_000, "validation": 15_000, "test": 15_000},
    "diabetic_retinopathy_detection/btgraham-300": {"sample": 10, "train": 35_126, "validation": 10_906, "test": 42_670},
    "dmlab": {"train": 65_550, "validation": 22_628, "test": 22_735},
    "dsprites": {"train": 737_280},
    "dtd": {"train": 1880, "validation": 1880, "test": 1880},
    "eurosat/rgb": {"train": 27_000},
    "kitti": {"train": 6347, "validation": 423, "test": 711},
    "oxford_flowers102": {"train": 1020, "validation": 1020, "test": 6149},
    "oxford_iiit_pet": {"train": 3680, "test": 3669},
    "patch_camelyon": {"train": 262_144, "validation": 32_768, "test": 32_768},
    "resisc45": {"train": 31_500},
    "smallnorb": {"train": 24_300, "test": 24_300},
    "sun397/tfds": {"train": 76_128, "validation": 10_875, "test": 21_750},
    "svhn_cropped": {"train": 73_257, "test": 26_032, "extra": 531_131},
}
# The authors' rule for where the 200 come from: a percentage of a split at which their validation set begins; the share of the
# test set. (arXiv 1910.04867; task_adaptation/data)
VAL200_FROM = {
    "caltech101": ("train", 90), "cifar100": ("train", 90), "pets": ("train", 80), "svhn": ("train", 90),
    "eurosat": ("train", 60), "resisc45": ("train", 60), "clevr_count": ("train", 90), "clevr_distance": ("train", 90),
    "dsprites_location": ("train", 80), "dsprites_orientation": ("train", 80), "smallnorb_azimuth": ("test", 0),
    "smallnorb_elevation": ("test", 0),
}  # fmt: skip
TESTED = {
    "eurosat": 5400, "resisc45": 6300, "clevr_count": 15_000, "clevr_distance": 15_000, "dsprites_location": 73_728,
    "dsprites_orientation": 73_728, "smallnorb_azimuth": 12_150, "smallnorb_elevation": 12_150,
}  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("vtab")
    for name, sizes in SIZES.items():
        tfds_miniature.make(directory, name, sizes, range(4) if name == "kitti" else range(3, 11))
    return str(directory)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_the_authors_splits(data_dir, task):
    lengths = {split: len(open_source(dataset(f"vtab:{task}", split, data_dir=data_dir))) for split in ("train800", "val200")}
    assert lengths == {"train800": 800, "val200": 200}
    assert len(open_source(dataset(f"vtab:{task}", "train800val200", data_dir=data_dir))) == 1000
    sizes = SIZES[TASKS[task].dataset]
    assert len(open_source(dataset(f"vtab:{task}", "test", data_dir=data_dir))) == TESTED.get(task, sizes.get("test"))
    split, percent = VAL200_FROM.get(task, ("validation", 0))
    start = sizes[split] * percent // 100
    assert TASKS[task].val200 == (f"{split}[{start}:{start + 200}]" if start else f"{split}[:200]")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_images_and_labels_below_its_number_of_classes(data_dir, task):
    source = open_source(dataset(f"vtab:{task}", "train800", data_dir=data_dir))
    records = [source[index] for index in range(12)]
    assert [source.labels(index) for index in range(12)] == [record.labels for record in records]
    labels = {label for record in records for label in record.labels}
    assert all(len(record.labels) == 1 for record in records) and len(labels) > 1
    assert min(labels) >= 0 and max(labels) < source.num_classes == len(source.class_names)
    for record in records:
        image = decode(record.image, 2**26) if isinstance(record.image, bytes) else record.image
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert "tensorflow" not in sys.modules


def test_dsprites_are_black_and_white(data_dir):
    source = open_source(dataset("vtab:dsprites_location", "train800", data_dir=data_dir))
    assert {value for index in range(12) for value in np.unique(source[index].image)} == {0, 255}


def objects(**features) -> dict:
    return {"objects": {key: np.array(values, np.float32) for key, values in features.items()}}


def seen_from(*depths: float) -> dict:
    return objects(pixel_coords=[[0, 0, depth] for depth in depths])


def on_the_road(*vehicles: tuple[int, float]) -> dict:
    types, depths = zip(*vehicles, strict=True) if vehicles else ((), ())
    return objects(type=types, location=np.reshape([[9, 9, depth] for depth in depths], (-1, 3)))


@pytest.mark.parametrize(
    ("task", "example", "label"),
    [
        *[("clevr_count", objects(size=[0] * number), number - 3) for number in range(3, 11)],
        *[("clevr_distance", seen_from(20, at), label) for label, at in enumerate((7.9, 8.4, 8.9, 9.4, 9.9, 10.1))],
        *[("clevr_distance", seen_from(at), label) for label, at in enumerate((8, 8.5, 9, 9.5, 10))],
        ("kitti_distance", on_the_road(), 3),
        ("kitti_distance", on_the_road((3, 1.0), (5, 2.0)), 3),  # a pedestrian and a cyclist
        ("kitti_distance", on_the_road((3, 1.0), (0, 8.0), (2, 70.0)), 0),
        ("kitti_distance", on_the_road((1, 8.1)), 1),
        ("kitti_distance", on_the_road((2, 20.1), (0, 90.0)), 2),
        *[("dsprites_location", {"label_x_position": at}, at // 2) for at in range(32)],
        *[("dsprites_orientation", {"label_orientation": at}, 2 * at // 5) for at in range(40)],
        ("smallnorb_azimuth", {"label_azimuth": 17}, 17),
        ("smallnorb_elevation", {"label_elevation": 8}, 8),
    ],
)
def test_labels_are_made_as_the_authors_make_them(task, example, label):
    assert TASKS[task].label(example) == label < TASKS[task].num_classes


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("vtab:mnist", "test", "VTAB has no task 'mnist': it has caltech101, .*smallnorb_elevation"),
        ("vtab:pets", "train", "vtab:pets has no split 'train': it has train800, val200, train800val200, test"),
        ("vtab:pets", "test", "oxford_iiit_pet is not prepared in .*tfds build oxford_iiit_pet --file_format=array_record"),
    ],
)
def test_what_is_not_there_is_refused_in_words(tmp_path, source, split, message):
    with pytest.raises(UserError, match=message):
        open_source(dataset(source, split, data_dir=str(tmp_path)))


def config_module() -> dict:
    return runpy.run_path(str(ROOT / "configs/finetune_vtab.py"))


@pytest.mark.parametrize("task", TASKS)
def test_the_config_of_a_task_is_valid_and_fits_its_data(data_dir, task):
    config = config_module()["get_config"](task)
    validate(config)
    for data, examples in ((config.data, 1000), (config.evals.test.data, None)):
        data.data_dir = data_dir
        source = open_source(data)
        assert source.num_classes == config.num_classes and len(source) == (examples or len(source))
    small = TASKS[task].dataset.split("/")[0] in ("cifar100", "svhn_cropped", "eurosat", "dsprites")
    assert config.image_size == (224 if small else 448)


def test_a_task_that_vtab_has_not_is_refused_with_those_it_has():
    module = config_module()
    assert set(module["ROWS"]) == set(TASKS)
    with pytest.raises(UserError, match=r"VTAB has no task 'mnist': the rows are caltech101, .*smallnorb_elevation"):
        module["get_config"]("mnist")
