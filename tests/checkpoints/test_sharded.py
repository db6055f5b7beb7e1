"""Tests that an index and its files are read like a single file, and that an index that does not fit is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from checkpoints.models import SMALL, random_weights

from mixer_jax.checkpoints import sharded
from mixer_jax.checkpoints.files import read_arrays, write_arrays
from mixer_jax.checkpoints.weights import load_weights, save_weights
from mixer_jax.errors import UserError

INDEX = "model.safetensors.index.json"


def make_sharded(folder: Path, count: int = 3) -> dict[str, str]:
    """Write a small Mixer in timm's format as `count` files with an index. The arrays go to the files in turn."""
    folder.mkdir(exist_ok=True)
    save_weights(random_weights(SMALL["mixer"]), str(folder / "whole.safetensors"))
    arrays, _ = read_arrays(str(folder / "whole.safetensors"))
    (folder / "whole.safetensors").unlink()
    names = [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]
    index = {name: names[number % count] for number, name in enumerate(arrays)}
    for shard in names:
        write_arrays(str(folder / shard), {name: x for name, x in arrays.items() if index[name] == shard}, {})
    write_index(folder, index)
    return index


def write_index(folder: Path, index: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))


@pytest.mark.parametrize("count", [1, 3])
def test_an_index_or_its_folder_is_read_and_that_is_said(tmp_path: Path, count: int, capsys):
    index, expected = make_sharded(tmp_path, count), random_weights(SMALL["mixer"]).arrays
    for path in (tmp_path, tmp_path / INDEX):
        arrays = load_weights(str(path)).arrays
        assert arrays.keys() == expected.keys() and all(np.array_equal(arrays[name], expected[name]) for name in arrays)
        assert capsys.readouterr().err == f"{path}: read {len(index)} arrays from {count} files.\n"


def test_an_index_in_a_bucket_names_files_in_that_bucket(tmp_path: Path):
    make_sharded(tmp_path)
    for file in tmp_path.iterdir():
        fsspec.filesystem("memory").pipe(f"/bucket/sharded/{file.name}", file.read_bytes())
    arrays = load_weights(f"memory://bucket/sharded/{INDEX}").arrays
    assert arrays.keys() == random_weights(SMALL["mixer"]).arrays.keys()


def test_links_into_a_cache_are_followed(tmp_path: Path):
    """The hub's own programs store files in another folder, with links to them in the folder of each version."""
    make_sharded(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(f"../blobs/{file.name}")
    assert load_weights(str(tmp_path / "snapshot")).format == "timm"


def test_a_folder_with_one_file_of_weights_is_that_file_and_one_with_several_is_refused(tmp_path: Path):
    save_weights(random_weights(SMALL["mixer"]), str(tmp_path / "model.safetensors"))
    assert load_weights(str(tmp_path)).format == "timm"
    make_sharded(tmp_path)
    with pytest.raises(UserError, match=r"holds several sets of weights: model.safetensors, .*index.json. Name one"):
        load_weights(str(tmp_path))


def rename(index: dict[str, str], file: str) -> dict[str, str]:
    first = next(iter(index.values()))
    return {name: file if place == first else place for name, place in index.items()}


def swapped(index: dict[str, str]) -> dict[str, str]:
    one, other, *_ = index
    return index | {one: index[other], other: index[one]}


# {fault: (a function that returns the wrong index, the reason in the message)}
FAULTS: dict[str, tuple[Callable[[dict], object], str]] = {
    "above": (lambda index: rename(index, "../model.safetensors"), r"names the file '../model.safetensors': only"),
    "absolute": (lambda index: rename(index, "/etc/model.safetensors"), "names the file '/etc/model.safetensors': only"),
    "below": (lambda index: rename(index, "a/model.safetensors"), "only .safetensors files in the folder of the index"),
    "of Windows": (lambda index: rename(index, "..\\model.safetensors"), "only .safetensors files in the folder of the index"),
    "a URL": (lambda index: rename(index, "gs://a/model.safetensors"), "only .safetensors files in the folder of the index"),
    "a pickle": (lambda index: rename(index, "pytorch_model.bin"), "only .safetensors files in the folder of the index"),
    "zero byte": (lambda index: rename(index, "a\0.safetensors"), "only .safetensors files in the folder of the index"),
    "missing file": (lambda index: rename(index, "gone.safetensors"), "names 'gone.safetensors', which is not there. Download"),
    "wrong file": (swapped, r"says that '\S+' is in 'model-0000\d-of-00003.safetensors', which does not have it"),
    "missing array": (lambda index: index | {"x": next(iter(index.values()))}, "says that 'x' is in 'model-00001.* not have"),
    "extra array": (lambda index: dict(list(index.items())[:-1]), "does not name '.*', and it is in .*different downloads"),
    "no map": (lambda index: [], 'has no "weight_map"'),
    "an empty map": (lambda index: {}, 'has no "weight_map"'),
    "a number": (lambda index: index | {"x": 1}, 'has no "weight_map"'),
    "a deep list": (lambda index: json.loads("[" * 500 + "]" * 500), 'has no "weight_map"'),
}


@pytest.mark.parametrize("case", FAULTS)
def test_an_index_that_does_not_fit_its_files_is_refused_in_one_line(tmp_path: Path, case: str):
    change, message = FAULTS[case]
    write_index(tmp_path, change(make_sharded(tmp_path)))
    with pytest.raises(UserError, match=message) as error:
        load_weights(str(tmp_path))
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


TEXTS = {
    "no JSON": ("{", "damaged or cut short"),
    "no table": ("[1]", 'has no "weight_map"'),
    "no UTF-8": (b"\xff", "damaged or cut short"),
    "nested too deep": ("[" * 100_000, "damaged or cut short"),
    "a name twice": ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "holds 'a' twice"),
    "too long": (" " * (5 << 20), "5242880 bytes; such a file has at most"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_text_that_is_no_index_is_refused_in_one_line(tmp_path: Path, case: str):
    text, message = TEXTS[case]
    (tmp_path / INDEX).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as error:
        load_weights(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_hostile_file_among_sound_ones_is_named_and_no_array_is_read(tmp_path: Path, monkeypatch):
    index = make_sharded(tmp_path)
    last = sorted(set(index.values()))[-1]
    (tmp_path / last).write_bytes((1 << 40).to_bytes(8, "little") + b"{" + bytes(100))
    monkeypatch.setattr(sharded, "read_arrays", None)
    with pytest.raises(UserError, match=f"{last} declares a header of 1099511627776 bytes"):
        load_weights(str(tmp_path))
