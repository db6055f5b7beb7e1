"""One flag is enough for data of one's own: what is not typed follows it, and no evaluator takes what is trained on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from absl import flags
from conftest import ROOT
from ml_collections import ConfigDict

from mixer_jax.app import typed_options
from mixer_jax.config import flatten
from mixer_jax.config_files import define_config, without_switches
from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.data.sources.own_data import follow_training_data, names_training_data
from mixer_jax.data.sources.registry import open_source
from mixer_jax.errors import UserError

SHARDS = f"records:{ROOT}/tests/written_at_094b98b/data"  # train and test, 10 classes


def followed(config: str, *typed: str) -> tuple[ConfigDict, str]:
    """The config of train.py with what follows the flags that are typed, and what is said."""
    values, argv = flags.FlagValues(), ["", f"--config={ROOT}/configs/{config}", *(f"--config.{flag}" for flag in typed)]
    define_config(values, argv)
    assert values(without_switches(argv)) == [""]
    said = follow_training_data(values.config, *typed_options(values))
    return values.config, said


def make_photos(folder: Path, layout: str) -> str:
    """A folder with an image for each class of 3 in each split of `layout`, or in the folder itself."""
    for split in layout.split() or [""]:
        for name in "abc":
            (folder / split / name).mkdir(parents=True)
            cv2.imwrite(str(folder / split / name / "0.png"), np.zeros((4, 4, 3), np.uint8))
    return f"folder:{folder}"


TEST = "evals.test.data"
# Config file, splits of the folder, what is typed beside the source, what else is set.
FOLDERS = {
    "train and test": ("finetune.py:cifar10", "train test", (), {f"{TEST}.split": "test"}),
    "another name": ("finetune.py:cifar10", "train val", (), {f"{TEST}.split": "val"}),
    "the file's own name first": ("finetune.py:imagenet", "train test validation", (), {f"{TEST}.split": "validation"}),
    "the most usual name": ("finetune.py:imagenet", "train test dev", (), {f"{TEST}.split": "test"}),
    "capital letters": ("finetune.py:pets", "Train Test", (), {"data.split": "Train", f"{TEST}.split": "Test"}),
    "a sum of splits": ("finetune.py:flowers", "train test", (), {"data.split": "train"}),
    "slices": (
        "pretrain_imagenet21k.py",
        "train val",
        (),
        {"data.split": "train", "evals.held_out.data.split": "val", "evals.fewshot.train.source": "tfds:imagenet2012"},
    ),
    "few-shot": (
        "pretrain_imagenet.py",
        "train test",
        (),
        {"evals.fewshot.train.split": "train", "evals.fewshot.test.split": "test", "evals.validation.data.split": "test"},
    ),
    "a typed evaluator": (
        "finetune.py:cifar10",
        "train",
        (f"{TEST}.source=digits",),
        {f"{TEST}.source": "digits", f"{TEST}.split": "test"},
    ),
    "a typed split of training": ("finetune.py:cifar10", "train test", ("data.split=test", f"{TEST}.split=train"), {}),
    "training data, on purpose": ("finetune.py:cifar10", "train", (f"{TEST}.split=train",), {f"{TEST}.split": "train"}),
    "no splits": ("finetune.py:cifar10", "", (f"{TEST}.source=digits",), {"data.split": "", f"{TEST}.split": "test"}),
    "an evaluator switched off": ("finetune.py:cifar10", "train", ("evals.test=None",), {}),
    "a task of VTAB": ("finetune_vtab.py:pets", "train test", (), {"data.split": "train", f"{TEST}.split": "test"}),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_evaluators_and_splits_follow_a_folder_and_what_is_typed_stays(case: str, tmp_path: Path):
    file, layout, typed, expected = FOLDERS[case]
    source = make_photos(tmp_path, layout)
    before, _ = followed(file)
    config, said = followed(file, f"data.source={source}", *typed)
    values, in_file = flatten(config), flatten(before)
    assert said.count("\n") == 0
    assert {path: values[path] for path in expected} == expected
    typed_values = dict(flag.split("=", 1) for flag in typed if not flag.endswith("=None")) | {"data.source": source}
    assert {path: values[path] for path in typed_values} == typed_values
    for path, value in values.items():  # what was set is said, and nothing else has changed
        assert (value != in_file[path]) == (path in typed_values or f"--config.{path}={value}" in said.split(" ")), path


REFUSED = {
    "no test split": (
        "finetune.py:cifar10",
        "train",
        (),
        r"has the splits train, and .* split 'train': .*--config.evals.test=None",
    ),
    "no splits": ("finetune.py:cifar10", "", (), "has no splits, and the run trains on all of it"),
    "trained on": ("finetune.py:cifar10", "train test", ("data.split=test",), "trains on split 'test'"),
    "two evaluators": ("pretrain_imagenet.py", "train", (), "--config.evals.fewshot=None --config.evals.validation=None"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_without_a_split_that_is_not_trained_on_the_flags_to_type_are_said(case: str, tmp_path: Path):
    file, layout, typed, message = REFUSED[case]
    source = make_photos(tmp_path, layout)
    with pytest.raises(UserError, match=message):
        followed(file, f"data.source={source}", *typed)


OTHERS = {
    "slices of shards are kept": (
        "pretrain_imagenet21k.py",
        ("data.split=train[2:]",),
        {"evals.held_out.data.split": "train[:51200]"},
    ),
    "another folder of the same": ("finetune.py:cifar10", ("data.verify=ends",), {f"{TEST}.verify": "ends"}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_shards_are_followed_with_the_options_that_their_splits_share(case: str):
    file, typed, expected = OTHERS[case]
    config, _ = followed(file, f"data.source={SHARDS}", *typed)
    assert {path: flatten(config)[path] for path in expected} == expected


def test_nothing_follows_where_no_training_data_are_typed():
    for typed in ((), ("data.split=test",), ("evals.test.data.source=digits",), ("num_classes=3",)):
        config, said = followed("finetune.py:cifar10", *typed)
        before, _ = followed("finetune.py:cifar10")
        changed = {path for path, value in flatten(config).items() if flatten(before)[path] != value}
        assert said == "" and changed <= {flag.split("=")[0] for flag in typed}


def test_a_new_evaluator_that_names_no_source_is_of_the_training_data(tmp_path: Path):
    source = make_photos(tmp_path, "train val test")
    for typed in ((f"data.source={source}",), ()):
        config, said = followed("demo/finetune.py", *typed, "evals.more.resize=whole")
        assert config.evals.more.data.source == (source if typed else "digits")
        assert config.evals.more.data.split == "test" and "--config.evals.more.data.split=test" in said
    config, _ = followed("finetune.py:cifar10", f"data.source={source}", "evals.val.data.split=val")
    assert (config.evals.val.data.source, config.evals.val.data.split, config.evals.test.data.split) == (source, "val", "test")


def test_a_folder_that_is_not_there_is_refused_as_everywhere():
    config, _ = followed("finetune.py:cifar10", "data.source=folder:/no/such")
    with pytest.raises(UserError, match="There is no folder /no/such/train"):
        open_source(config.data)


def test_no_data_are_opened_before_the_run_opens_them(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(FolderSource, "__init__", None)
    config, _ = followed("finetune.py:cifar10", f"data.source={make_photos(tmp_path, 'train test')}")
    assert config.evals.test.data.split == "test"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [((), False), (("data.source",), True), (("data.verify",), True), (("data.split", "evals.test.data.source"), False)],
)
def test_what_is_typed_may_say_which_dataset_to_train_on(typed: tuple[str, ...], expected: bool):
    assert names_training_data(typed) == expected
