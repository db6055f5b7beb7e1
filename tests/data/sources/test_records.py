"""What a prepared split holds, its slices, and what is said of one that is not there."""

import json

import numpy as np
import pytest
from data.sources.prepared import NUM_IMAGES, labels_of, opened
from tiny_config import loader_config

from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.errors import UserError


def test_a_split_says_what_it_holds(made):
    source = opened(made)
    assert (len(source), source.num_classes, source.max_labels) == (NUM_IMAGES, 30_000, 3)
    assert source.class_names[29_999] == "class 29999"
    assert all(source.labels(i) == source[i].labels for i in range(len(source)))
    content = json.loads((made / "train/manifest.json").read_text())
    assert (content["label_kind"], content["records"]) == ("multi", NUM_IMAGES)
    assert [row["records"] for row in content["shards"]] == [4] * 6 + [3] * 2
    counts = np.bincount([label for i in range(NUM_IMAGES) for label in labels_of(i)], minlength=30_000)
    assert content["images_of_class"] == counts.tolist()


def test_batches_hold_class_numbers_and_no_row_of_all_classes(made):
    config = dataset(f"records:{made}")

    def transform(image, rng):
        return image[:2, :2]

    batches = eval_batches(open_source(config), transform, loader_config(), batch_size=10, batch_indices=np.arange(10))
    batch = next(iter(batches))
    assert batch["labels"].shape == (10, 3) and batch["labels"].dtype == np.int32


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train[:7]", range(7)), ("train[7:]", range(7, 30)), ("train[-5:]", range(25, 30)), ("train[10%:50%]", range(3, 15)),
        ("train[2:-2]", range(2, 28)), ("train[:]", range(30)),
    ],
)  # fmt: skip
def test_a_slice_is_part_of_the_split(made, split, expected):
    whole, part = opened(made), opened(made, split)
    assert [part[i] for i in range(len(part))] == [whole[i] for i in expected]
    assert part.locate(0) == whole.locate(expected[0])


def test_a_folder_of_a_split_is_read_with_an_empty_split(made):
    assert len(opened(made / "train", "")) == NUM_IMAGES


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation", "no manifest.json.*There are the splits train"),
        ("train[:", r"data.split is 'train\[:'"),
        ("train[5:5]", "no record"),
    ],
)
def test_a_split_that_is_not_there_is_refused_with_those_that_are(made, split, message):
    with pytest.raises(UserError, match=message):
        opened(made, split)


def test_a_folder_that_was_never_prepared_is_refused_with_the_command(tmp_path):
    with pytest.raises(UserError, match="mixer_jax prepare"):
        opened(tmp_path)
