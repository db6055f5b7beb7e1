"""Read weights that are split over several .safetensors files with an index, as on the Hugging Face hub.

MODEL.safetensors.index.json says which file holds which array: {"weight_map": {name of an array: name of a file}}. The files must
be in the folder of the index. All files are compared with the index before any array is read. The index may have at most
LIST_LIMIT bytes, as the header of a single file, so the arrays of all files together are at most as many as those of one file.
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

SHOWN_CHARACTERS = 100


def read_sharded(path: str) -> tuple[dict[str, np.ndarray], str]:
    """Return ({name: array}, a note that says how much was read) of an index and the files that it names.

    Raises UserError for an index that is damaged, is malicious or does not fit its files.
    """
    folder = path[: path.rfind("/") + 1]
    with ExitStack() as copies:
        weight_map = _read_index(copies.enter_context(local_copy(path)), path)
        files = {}
        for shard in dict.fromkeys(weight_map.values()):
            with naming(path):
                if "://" not in path and not os.path.lexists(folder + shard):
                    raise Refused(f"names {_shown(shard)}, which is not there. Download it into the same folder")
            files[shard] = copies.enter_context(local_copy(folder + shard))
            signatures, _ = read_signatures(files[shard])
            with naming(path):
                _compare(shard, signatures.keys(), weight_map)
        arrays: dict[str, np.ndarray] = {}
        for file in files.values():
            arrays |= read_arrays(file)[0]
    return arrays, f"read {len(arrays)} arrays from {len(files)} files"


def _read_index(file: str, path: str) -> dict[str, str]:
    """Return {name of an array: name of its file}. Raises UserError for an index that is damaged or malicious."""

    def unique(pairs: list[tuple]) -> dict:
        check_unique([name for name, _ in pairs])
        return dict(pairs)

    with refusing(path):
        content = json.loads(read_bytes(Path(file), LIST_LIMIT), object_pairs_hook=unique)
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(name, str) for name in weight_map.values()):
            raise Refused('is no index of weights: it has no "weight_map" of names and files')
        for shard in weight_map.values():
            if "/" in shard or "\\" in shard or "\0" in shard or not shard.endswith(".safetensors"):
                raise Refused(f"names the file {_shown(shard)}: only .safetensors files in the folder of the index are read")
        return weight_map


def _compare(shard: str, stored: Collection[str], weight_map: dict[str, str]) -> None:
    """Raise Refused if the names of the arrays that are `stored` in a file are not those that the index states for the file."""
    if missing := sorted(name for name, file in weight_map.items() if file == shard and name not in stored):
        raise Refused(f"says that {_shown(missing[0])} is in {_shown(shard)}, which does not have it")
    for name in sorted(stored):
        if weight_map.get(name) != shard:
            stated = (
                f"says that {_shown(name)} is in {_shown(weight_map[name])}"
                if name in weight_map
                else f"does not name {_shown(name)}"
            )
            raise Refused(f"{stated}, and it is in {_shown(shard)}: index and files are of different downloads")


def _shown(name: str) -> str:
    """Return a name for a message: quoted, and shortened if it is long."""
    return repr(name[:SHOWN_CHARACTERS])
