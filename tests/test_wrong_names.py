"""Every option that is a name with a name that does not exist: what train.py says, and that it says so before the first step."""

import pytest
from conftest import ROOT
from data.tfds_miniature import make
from ml_collections import ConfigDict

import train
from mixer_jax.config import dataset
from mixer_jax.data.sources.registry import SOURCES, open_source
from mixer_jax.errors import UserError
from mixer_jax.options import OPTIONS
from mixer_jax.training.program import Program

SHARDS = f"{ROOT}/tests/written_at_094b98b/data"
# Options that are names but have no choices: a name that does not exist, options that let it count, and what the message has.
WRONG = {
    "data.source": ("digit", {}, r"config\.data: data\.source is 'digit': it must be digits, glyphs, folder:DIR, tfds:NAME"),
    "data.split": ("dev", {}, r"config\.data: digits has no split 'dev': it has train, test"),
    "data.data_dir": ("/no/such", {"data.source": "tfds:cifar10"}, r"config\.data: cifar10 is not prepared in /no/such"),
    "data.local_copy": (
        "/no/such",
        {},
        r"config\.data\.local_copy is '/no/such': it must be empty, or used with source=records:gs.*, data_dir=gs",
    ),
    "compilation_cache": ("s3://bucket", {}, "s3://bucket: of all buckets, only those of Google Cloud Storage"),
    "init_from": ("/no/such", {}, "/no/such"),
    "init_classes": ("/no/such", {"init_head": "subset", "init_from": "RUN"}, "/no/such"),
    "model.variant": ("XL/16", {}, r"config\.model\.variant is 'XL/16': .* SIZE/PATCH with a size of S, B, L, H"),
    "optimizer.weight_decay_pattern": ("body/.*", {}, r"config\.optimizer: the pattern 'body/\.\*' matches no parameter"),
    "checkpoint.best": ("evals.no.top1", {}, r"config\.checkpoint\.best is 'evals\.no\.top1': it must be one of evals\."),
    "profile": ("first:last", {}, r"config\.profile is 'first:last': it must be FIRST:LAST"),
    "optimizer.multipliers": ((("body/.*", 0.0),), {}, r"config\.optimizer: the pattern 'body/\.\*' matches no parameter"),
}


def put(config: ConfigDict, path: str, value) -> None:
    *parents, last = path.split(".")
    for name in parents:
        config = config[name]
    config[last] = value


@pytest.mark.parametrize("path", WRONG)
def test_a_name_that_does_not_exist_is_refused_before_the_first_step(path, tiny_run, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(Program, "compile_step", None)  # a call would be a TypeError
    value, changes, message = WRONG[path]
    for name, changed in (changes | {path: value}).items():
        put(tiny_config, name, str(tiny_run) if changed == "RUN" else changed)
    with pytest.raises(UserError, match=message):
        train.train(tiny_config, str(tmp_path / "run"))


def test_every_name_is_tried():
    names = {row.name for row in OPTIONS if isinstance(row.default, str) and not row.choices}
    assert names | {"optimizer.multipliers"} == set(WRONG)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, ConfigDict]:
    """A dataset of every kind."""
    folder = tmp_path_factory.mktemp("splits")
    for split in ("train", "test"):
        (folder / "photos" / split / "ant").mkdir(parents=True)
        (folder / "photos" / split / "ant/1.jpg").write_bytes(b"")
    data_dir = str(make(folder, "oxford_iiit_pet", {"train": 3680, "test": 3669}))
    return {
        "digits": dataset("digits"),
        "glyphs": dataset("glyphs", num_examples=9),
        "folder": dataset(f"folder:{folder}/photos"),
        "tfds": dataset("tfds:oxford_iiit_pet", data_dir=data_dir),
        "vtab": dataset("vtab:pets", "train800", data_dir=data_dir),
        "records": dataset(f"records:{SHARDS}"),
    }


KNOWN = {
    "digits": "train, test",
    "glyphs": "train, validation",
    "folder": "test, train",
    "tfds": r"train \(3680 examples\), test",
    "vtab": "train800, val200, train800val200, test",
    "records": "test, train",
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_split_that_does_not_exist_is_refused_with_those_that_do(kind: str, sources):
    assert len(open_source(sources[kind])) > 0
    sources[kind].split = "dev"
    with pytest.raises(UserError, match=rf"config\.evals\.val\.data: .*\bdev\b.*{KNOWN[kind]}"):
        open_source(sources[kind], "config.evals.val.data")
