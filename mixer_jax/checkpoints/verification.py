"""Verify a file of weights or a run: `python -m mixer_jax weights verify`."""

import json
from pathlib import Path

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.released import FROM_SCRATCH, RELEASED, TRAP_OF_NAMES, fetch, file_sha256, is_released, mebibytes
from mixer_jax.checkpoints.weights import ANY_RANGE, Weights, load_weights, preprocessing_of
from mixer_jax.classes import describe, has_names
from mixer_jax.errors import UserError


def verify(path: str, sha256: str = "") -> str:
    """Check the weights in a file or a run, and return a description of them.

    The check covers the structure, shapes, dtypes, finite values and, if the metadata states it, the digest of the parameters.
    Raises UserError if a check fails, or if `sha256` is given and the file has another SHA-256.
    """
    if sha256 and (found := _file_sha256(path)) != sha256.lower():
        raise UserError(f"{path} has SHA-256 {found}, and not {sha256.lower()}: it is another file, or damaged.")
    weights = load_weights(path)
    model = weights.model  # This raises UserError if the weights are not those of a complete model.
    parameters = sum(x.size for x in weights.arrays.values())
    lines = [
        f"{path}: {model}",
        f"  format         {weights.format}; {len(weights.arrays)} arrays, {parameters:,} parameters",
        f"  classes        {_classes(weights)}",
        f"  preprocessing  {_preprocessing(weights)}",
        f"  params SHA-256 {params_sha256(weights.arrays)}"
        + (", as its metadata says" if "params_sha256" in weights.metadata else ""),
    ]
    if _local_file(path).is_file():
        lines.append(f"  file SHA-256   {_file_sha256(path)}" + (", as asked for" if sha256 else ""))
    return "\n".join([*lines, *_released_as(weights)])


def _classes(weights: Weights) -> str:
    """Return the number of classes, and the names of the first ones if the weights name their classes."""
    names = weights.class_names
    if not has_names(names):
        return f"{len(names)}, without names"
    return f"{len(names)}: {', '.join(map(describe, names[:5]))}" + (", ..." if len(names) > 5 else "")


def _preprocessing(weights: Weights) -> str:
    """Return how to prepare images for the model, or what is known about it."""
    steps = preprocessing_of(weights)
    if steps.get("value_range") is not None:
        return json.dumps(steps)
    return (
        f"not known. The model takes images of {weights.model.image_size} px; models of {' and '.join(ANY_RANGE)} were trained "
        "with pixels in [-1, 1], in [0, 1], or less ImageNet's mean. See where it comes from (config.json: mean, std)."
    )


def _released_as(weights: Weights) -> list[str]:
    """Return lines that name the released file with a model of the same shape, and compare the sizes of the files."""
    model = weights.model
    if model.family != "mixer":
        return []
    for row in RELEASED:
        if (model.fields, model.num_classes, model.image_size) == ({"variant": row.variant}, row.num_classes, 224):
            line = f"  released as    {row.name}, {row.data}: a file of {row.mebibytes} MiB"
            file = _local_file(weights.path)
            if weights.format == "released" and file.is_file():
                line += f"; this one has {mebibytes(file)}"
            return [line] + ([f"  note           {TRAP_OF_NAMES}"] if row.data == FROM_SCRATCH else [])
    return ["  released as    none of the four"]


def _local_file(path: str) -> Path:
    """Return the file that is at a path or, for released:NAME, in the cache."""
    return Path(fetch(path) if is_released(path) else path)


def _file_sha256(path: str) -> str:
    """Return the SHA-256 of a file's bytes. Raises UserError if `path` is not a file on this machine."""
    file = _local_file(path)
    if not file.is_file():
        raise UserError(f"{path} is no file on this machine: a digest of the file needs one.")
    return file_sha256(file)
