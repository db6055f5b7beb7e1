"""What lies in the prepared split of conftest.py, opening it, and the same in a bucket."""

from pathlib import Path

import pytest
from preparation import miniature

from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import open_source
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec

NUM_IMAGES, PER_SHARD = 30, 4
SHARD = "train-00003-of-00008.array_record"


def labels_of(number: int) -> tuple[int, ...]:
    """None, one, or several of 30 000."""
    return tuple(sorted({29_999 - number, 7 * number, 123}))[: number % 4]


def opened(directory: Path, split: str = "train", verify: str = "full"):
    return open_source(dataset(f"records:{directory}", split, verify=verify))


def make_split(root: Path, images: dict[str, bytes], per_shard: int) -> Path:
    """Prepare the split "train" of images in folders of classes, and return the folder of the data set."""
    spec = PreparationSpec(f"folder:{miniature.make_tree(root / 'images', images)}", "train", records_per_shard=per_shard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        prepare(spec, root / "to", threads=2)
    return root / "to"


def reads(cloud, name: str = ".array_record") -> int:
    """How often an object whose name contains `name` was read."""
    return sum(request.method == "GET" and name in request.name for request in cloud.requests)
