"""A prepared split, made once."""

import shutil
from pathlib import Path

import pytest
from data.sources.prepared import NUM_IMAGES, PER_SHARD, labels_of
from preparation import miniature

from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A split "train" of 30 images, with sets of labels out of 30 000, in 8 shards. Read only."""
    root = tmp_path_factory.mktemp("made")
    names = [f"{number:02d}.jpg" for number in range(NUM_IMAGES)]
    miniature.make_tree(root / "images", {name: miniature.jpeg(number) for number, name in enumerate(names)})
    (root / "labels.txt").write_text("".join(f"{name} {' '.join(map(str, labels_of(i)))}\n" for i, name in enumerate(names)))
    (root / "classes.txt").write_text("".join(f"class {label}\n" for label in range(30_000)))
    spec = PreparationSpec(
        f"folder:{root / 'images'}", "train", classes=str(root / "classes.txt"), labels=str(root / "labels.txt"),
        records_per_shard=PER_SHARD, allow_empty_classes=True,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        prepare(spec, root / "to", threads=2)
    return root / "to"


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))
