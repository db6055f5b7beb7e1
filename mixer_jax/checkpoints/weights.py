"""Parameters from anywhere and to anywhere: runs of ours, released .npz files, timm's safetensors; told apart by what they hold.

Not here: the bytes of files (files.py), the names in them (formats.py), making parameters fit another model (surgery.py).
"""

import dataclasses
import functools
import importlib.metadata
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from mixer_jax.checkpoints import npz
from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.files import local_copy, read_arrays, write_arrays
from mixer_jax.checkpoints.formats import Arrays, find_format, get_format
from mixer_jax.checkpoints.manager import Checkpoints, differences, load_run, signatures
from mixer_jax.checkpoints.sharded import INDEX, find_index, read_sharded
from mixer_jax.checkpoints.surgery import count_classes
from mixer_jax.checkpoints.wrapped import split_choice, unwrap
from mixer_jax.classes import Names, from_json, has_names, imagenet_names, to_json, unnamed
from mixer_jax.errors import UserError, as_message
from mixer_jax.hosts.agreement import agree
from mixer_jax.models.identify import ModelSpec, identify
from mixer_jax.models.registry import make_model, param_shapes

ANY_RANGE = ("timm", "transformers")  # formats of models that take different ranges of pixels; the authors' take [-1, 1]
TRAINED = (
    "loss",
    "dtype",
)  # what a run says of its training, and a file that is made of it: config.loss.kind, config.model.dtype
OTHER_FLOATS = ("float16", "bfloat16", "float64")
SUFFIXES = {".npz": "released", ".safetensors": "timm"}  # and the format in which files of the kind are written
# Endings of files that we do not write. Any other ending belongs to the name of a run's folder, such as runs/lr0.1.
FOREIGN_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".h5", ".hdf5", ".msgpack", ".pkl", ".npy", ".onnx", ".zip", ".tar", ".gz")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters on the host."""

    arrays: Arrays  # by the paths of our own trees
    path: str  # or URL, where they were read
    format: str  # "run", or one of formats.py
    step: int  # of the run they come from; 0 when that is not known
    metadata: dict[str, str]  # what the file says of itself
    class_names: Names = ()  # of the head, 0, 1, ... where they have no names; empty without a head

    @functools.cached_property
    def model(self) -> ModelSpec:
        """Raises UserError when this is no model of ours, with everything that keeps it from being the nearest."""
        model = identify(signatures(self.arrays))
        if model is None:
            raise UserError(f"{self.path}: these are not the parameters of a Mixer, ViT or BiT of ours.")
        lines = differences(expected_signatures(model), signatures(self.arrays))
        if lines:
            raise UserError(f"{self.path} looks like {model}, but does not fit it:\n  " + "\n  ".join(lines))
        return model


def load_weights(path: str) -> Weights:
    """Load parameters from a run, one of its checkpoints/STEP, a .npz or .safetensors file, or SCHEME://BUCKET/FILE.

    Also from MODEL.safetensors.index.json and the files that it names, or the folder that holds it; FILE#PREFIX chooses one of
    several sets of parameters (wrapped.py). What was done beside reading is printed on standard error, in one line.
    Of a run's folder: its newest sound step, and the averaged parameters where it has them. A scheme needs its library.
    Raises UserError when there is nothing, when it is damaged, hostile, or in no format that we know; and on all hosts of a run
    when they have not read the same.
    """
    weights = _load(path)
    agree("weights", lambda: {"parameters (SHA-256)": params_sha256(weights.arrays), "their classes": weights.class_names})
    return weights


def _load(path: str) -> Weights:
    file, chosen = split_choice(path) if not os.path.lexists(path) else (path, None)
    if Path(file).is_dir() and not (Path(file) / "checkpoints").exists():
        file = find_index(Path(file)) or file
    is_named_as_file = Path(file).suffix in SUFFIXES and not Path(file).is_dir()
    if is_named_as_file or file.endswith(INDEX) or "://" in file or Path(file).is_file():
        return _load_file(file, path, chosen)
    arrays, meta = load_run(path)
    check_finite(arrays, path)
    return Weights(arrays, path, "run", meta["step"], _metadata_of_run(meta), _class_names(meta, arrays, path))


def _load_file(file: str, path: str, chosen: str | None) -> Weights:
    """Load one file, or an index and its files; `path` is what the user typed, with the prefix that is `chosen`."""
    arrays, metadata, said = _read(file)
    try:
        arrays, unwrapped = unwrap(arrays, chosen)
        format = find_format(arrays)
        if format is None:
            some = ", ".join(sorted(arrays)[:3])
            raise UserError(f"It is in no format of Mixer, ViT or BiT that we know: its {len(arrays)} arrays are {some}, ...")
        arrays = format.to_ours(arrays)
    except UserError as error:
        raise UserError(f"{path}: {str(error).replace('FILE#', f'{file}#')}") from error
    if "params_sha256" in metadata and metadata["params_sha256"] != params_sha256(arrays):
        raise UserError(f"{path}: its parameters are not those that it was written with (metadata: params_sha256).")
    arrays, converted = to_float32(arrays, path)
    if said := ", ".join(filter(None, (said, unwrapped, converted))):
        print(as_message(f"{path}: {said}."), file=sys.stderr)  # of some commands, standard output is one figure alone
    check_finite(arrays, path)
    step = int(metadata["step"]) if re.fullmatch(r"[0-9]{1,15}", metadata.get("step", "")) else 0
    said = {"class_names": _recorded(metadata, "class_names")} if "class_names" in metadata else {}
    names = _class_names(said, arrays, path)
    if not said and "params_sha256" not in metadata:  # a file of others, who do not name classes
        names = imagenet_names(len(names)) or names
    return Weights(arrays, path, format.name, step, metadata, names)


def _read(file: str) -> tuple[Arrays, dict[str, str], str]:
    """Return (arrays, metadata, what was read if that is more than one file)."""
    if file.endswith(INDEX):
        arrays, said = read_sharded(file)
        return arrays, {}, said
    with local_copy(file) as local_path:
        return *read_arrays(local_path), ""


def to_float32(arrays: Arrays, where: str) -> tuple[Arrays, str]:
    """Return arrays of other floating-point types as float32, in which models keep their parameters, and what was converted.

    Raises UserError for a finite value that float32 does not reach.
    """
    others = {name: x.dtype.name for name, x in arrays.items() if x.dtype.name in OTHER_FLOATS}
    converted = {}
    for name in others:
        with np.errstate(over="ignore"):
            converted[name] = arrays[name].astype(np.float32)
        if count := int(np.count_nonzero(np.isfinite(arrays[name]) & ~np.isfinite(converted[name]))):
            raise UserError(f"{where}: {name} holds {count} values of {others[name]} that are beyond float32.")
    types = ", ".join(sorted(set(others.values())))
    return arrays | converted, f"converted {len(others)} arrays of {types} to float32" if others else ""


def check_finite(arrays: Arrays, where: str) -> None:
    """Raise UserError that names the first array with a value that is not finite."""
    for name, x in arrays.items():
        if count := x.size - int(np.count_nonzero(np.isfinite(x))):
            raise UserError(
                f"{where}: {name} holds {count} of {x.size} values that are not finite (NaN or infinite): no answer of such a "
                "model means anything. Use an earlier checkpoint, or copy the file again."
            )


def _class_names(said: dict, arrays: Arrays, path: str) -> Names:
    """Return the names of the head's classes that a file or run says it has, in `said`, or their numbers.

    Raises UserError for something else, or another number of classes.
    """
    count = count_classes(arrays)
    if "class_names" not in said:
        return unnamed(count)
    try:
        names = from_json(said["class_names"])
    except ValueError as error:
        raise UserError(f"{path}: what it says of its classes is damaged: {error}.") from error
    if len(names) != count:
        raise UserError(f"{path} says that it has {len(names)} classes, and its head has {count}: it is damaged or altered.")
    return names


def _metadata_of_run(meta: dict) -> dict[str, str]:
    """Return how a run was trained and how images are prepared: as `file_metadata` wrote it, or as the run's own evaluator does.

    What neither says is missing.
    """
    if "preprocessing" in meta:
        return {name: meta[name] for name in ("preprocessing", *TRAINED) if name in meta}
    config = meta["config"]
    said = {"loss": config["loss"]["kind"], "dtype": config["model"]["dtype"]} if "loss" in config else {}
    for evaluator in meta["config"].get("evals", {}).values():
        if evaluator["kind"] == "classification":
            steps = preprocessing(config["image_size"], evaluator["resize"], evaluator["resize_size"])
            return said | {"preprocessing": json.dumps(steps)}
    return said


def preprocessing_of(weights: Weights) -> dict:
    """Return how images become the model's input, as the weights say or else as in the paper.

    The "value_range" is None where it is not known: other people's files of one format were trained with different ones.
    """
    steps = _recorded(weights.metadata, "preprocessing")
    if isinstance(steps, dict) and steps:
        return steps
    return preprocessing(weights.model.image_size) | ({"value_range": None} if weights.format in ANY_RANGE else {})


def range_note(weights: Weights) -> str:
    """Return what a user should know of the range of pixels that the weights expect; "" where it is the one that they get."""
    steps = _recorded(weights.metadata, "preprocessing")
    ours = None if weights.format in ANY_RANGE else [-1, 1]
    found = steps.get("value_range") if isinstance(steps, dict) and steps else ours
    if found == [-1, 1]:
        return ""
    said = "not known" if found is None else f"said to be {json.dumps(found)[:50]}"
    return f"{weights.path}: the range of pixels that it expects is {said}. It is given [-1, 1], and may answer wrongly."


def preprocessing(image_size: int, resize: str = "small", resize_size: int = 0) -> dict:
    """Return how images become the model's input; the defaults are those of the paper (supplement C) and of our evaluators."""
    if resize == "whole":
        resize, resize_size = "square", image_size
    return {
        "resize": resize,  # small: shorter side to resize_size; square: both sides
        "resize_size": resize_size or round(image_size * 256 / 224),
        "interpolation": "bilinear",
        "central_crop": image_size,
        "channels": "RGB",
        "value_range": [-1, 1],
    }


def save_weights(weights: Weights, path: str, format: str | None = None) -> None:
    """Write a .npz or .safetensors file in `format` (None: the usual of its kind), or the only checkpoint of a new run's folder.

    Raises UserError when the path is taken or the family has no such format.
    """
    suffix = Path(path).suffix
    if suffix in SUFFIXES:
        table = get_format(format or SUFFIXES[suffix], weights.model.family)
        theirs = table.to_theirs(weights.arrays)
        if signatures(table.to_ours(theirs)) != signatures(weights.arrays):
            raise UserError(
                f"The {table.name} format does not say how many heads a ViT has, and {weights.model} has an unusual number."
            )
        metadata = file_metadata(weights)
        if suffix == ".npz" and "class_names" in metadata and len(json.dumps(metadata)) > npz.COMMENT_LIMIT:
            del metadata["class_names"]
            print(f"{path} has no room for the names of its {len(weights.class_names)} classes: a .safetensors file has.")
        write_arrays(path, theirs, metadata)
        return
    if suffix in FOREIGN_SUFFIXES or format:
        raise UserError(f"--to={path}: a file must end in {' or '.join(SUFFIXES)}; without an ending it is a run's folder.")
    if Path(path).exists():
        raise UserError(f"{path} exists already: choose a new folder.")
    checkpoints = Checkpoints(path, keep=2)
    names = {"class_names": to_json(weights.class_names)} if has_names(weights.class_names) else {}
    meta = file_metadata(weights) | names | {"step": weights.step}
    checkpoints.save(weights.step, {"params": tree_of(weights.arrays)}, meta)
    checkpoints.finish()


def convert(source: str, target: str, format: str | None = None) -> Weights:
    """Write what `source` holds to `target`, read it again, print how far the two are apart, and return what was read.

    Raises UserError as load_weights and save_weights do, and when the source is no whole model or what is read is not the same.
    """
    before = load_weights(source)
    save_weights(before, target, format)
    after = load_weights(target)
    digest = params_sha256(after.arrays)
    if params_sha256(before.arrays) != digest:
        raise UserError(f"{target} does not hold the parameters that were written to it: the disk or its memory is at fault.")
    apart = np.max(np.abs(np.subtract(*fixed_logits(before, after))))
    print(f"{source} ({before.format}) -> {target} ({after.format}): {before.model}")
    print(f"  parameters identical, bit for bit: SHA-256 {digest}")
    print(f"  largest difference of logits on two fixed random images: {apart:.3g}")
    return after


def fixed_logits(*weights: Weights) -> list[np.ndarray]:
    """float32 [2, K] for each of several parameters of one model, on two random images that are always the same."""
    model = weights[0].model
    shape = (2, model.image_size, model.image_size, 3)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    apply = jax.jit(make_model(model.config(), model.num_classes).apply)
    return [np.asarray(apply({"params": tree_of(each.arrays)}, images)[0]) for each in weights]


def file_metadata(weights: Weights) -> dict[str, str]:
    """Return what a file that we write says of itself: source, digest, model, preprocessing and versions."""
    model = weights.model
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    names = {"class_names": json.dumps(to_json(weights.class_names))} if has_names(weights.class_names) else {}
    trained = {name: weights.metadata[name] for name in TRAINED if name in weights.metadata}
    return (
        names
        | trained
        | {
            "source": weights.path,
            "source_layout": weights.format,
            "step": str(weights.step),
            "params_sha256": params_sha256(weights.arrays),
            "model": str(model),
            "config": json.dumps(model.options()),
            "preprocessing": json.dumps(preprocessing_of(weights)),
            "versions": json.dumps(versions),
        }
    )


def _recorded(metadata: dict[str, str], name: str) -> Any:
    """Return what a file says of itself under a name, as JSON; None when it does not say, or no JSON."""
    try:
        return json.loads(metadata[name])
    except (KeyError, ValueError, RecursionError):
        return None


def expected_signatures(model: ModelSpec) -> dict[str, tuple]:
    """Return {path: (dtype, shape)} of the parameters of a model. Allocates nothing."""
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), np.float32)
    return signatures(param_shapes(make_model(model.config(), model.num_classes), images))


def tree_of(arrays: Arrays) -> dict:
    """{"stem/kernel": x} -> {"stem": {"kernel": x}}."""
    return traverse_util.unflatten_dict(arrays, sep="/")
