"""Weights in several .safetensors files with an index, as the Hugging Face hub has them.

MODEL.safetensors.index.json says which array is in which file: {"weight_map": {name: file}}. The files must lie beside it. All of
them are compared with the index before any array is read, and what bounds one file bounds all of them together.
"""

import json
import os
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mixer_jax.checkpoints.files import local_copy, naming, read_arrays, read_signatures, refusing
from mixer_jax.checkpoints.refusal import LIST_LIMIT, Refused, check_unique
from mixer_jax.storage import read_bytes

INDEX, SINGLE = ".safetensors.index.json", "model.safetensors"
SHOWN_CHARACTERS = 100


def find_index(folder: Path) -> str | None:
    """Return the index in a folder, or its one model.safetensors; None if it has neither. Refuses several."""
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(INDEX) or entry.name == SINGLE)
    if len(found) > 1:
        with naming(str(folder)):
            raise Refused(f"holds several sets of weights: {', '.join(found[:3])}. Name one of them")
    return str(folder / found[0]) if found else None


def read_sharded(path: str) -> tuple[dict[str, np.ndarray], str]:
    """Return ({name: array}, what was read, in words) of an index and the files that it names.

    Raises UserError for an index that is damaged, hostile or does not fit its files.
    """
    folder = path[: path.rfind("/") + 1]
    with ExitStack() as copies:
        places = _read_index(copies.enter_context(local_copy(path)), path)
        files = {}
        for shard in dict.fromkeys(places.values()):
            with naming(path):
                if "://" not in path and not os.path.lexists(folder + shard):
                    raise Refused(f"names {_shown(shard)}, which is not there. Download it into the same folder")
            files[shard] = copies.enter_context(local_copy(folder + shard))
            signatures, _ = read_signatures(files[shard])
            with naming(path):
                _compare(shard, signatures.keys(), places)
        arrays: dict[str, np.ndarray] = {}
        for file in files.values():
            arrays |= read_arrays(file)[0]
    return arrays, f"read {len(arrays)} arrays from {len(files)} files"


def _read_index(file: str, path: str) -> dict[str, str]:
    """Return {name of an array: its file}."""

    def unique(pairs: list[tuple]) -> dict:
        check_unique([name for name, _ in pairs])
        return dict(pairs)

    with refusing(path):
        content = json.loads(read_bytes(Path(file), LIST_LIMIT), object_pairs_hook=unique)
        places = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
            raise Refused('is no index of weights: it has no "weight_map" of names and files')
        for shard in places.values():
            if "/" in shard or "\\" in shard or "\0" in shard or not shard.endswith(".safetensors"):
                raise Refused(f"names the file {_shown(shard)}: only .safetensors files in the folder of the index are read")
        return places


def _compare(shard: str, found: Collection[str], places: dict[str, str]) -> None:
    """Refuse a file that does not hold exactly what the index says."""
    if missing := sorted(name for name, place in places.items() if place == shard and name not in found):
        raise Refused(f"says that {_shown(missing[0])} is in {_shown(shard)}, which does not have it")
    for name in sorted(found):
        if places.get(name) != shard:
            said = f"says that {_shown(name)} is in {_shown(places[name])}" if name in places else f"does not name {_shown(name)}"
            raise Refused(f"{said}, and it is in {_shown(shard)}: index and files are of different downloads")


def _shown(name: str) -> str:
    return repr(name[:SHOWN_CHARACTERS])
