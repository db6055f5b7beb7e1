"""Load parameters from runs and from files of several formats, save them, and convert between formats.

A file's format is recognized by the names of its arrays. The sibling modules read and write bytes (files.py), translate names
(formats.py), and change parameters to fit another model (surgery.py). released.py downloads what the paper's authors released.
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

from mixer_jax.checkpoints import hub, npz
from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.files import local_copy, naming, read_arrays, write_arrays
from mixer_jax.checkpoints.folder import INDEX, choose_file
from mixer_jax.checkpoints.formats import Arrays, find_format, get_format
from mixer_jax.checkpoints.in_bucket import load_run_in_bucket
from mixer_jax.checkpoints.manager import Checkpoints, differences, load_run, signatures
from mixer_jax.checkpoints.permuted import permutation_metadata, refuse_file, with_permutation
from mixer_jax.checkpoints.released import fetch, is_released
from mixer_jax.checkpoints.run_paths import is_run_in_bucket
from mixer_jax.checkpoints.sharded import read_sharded
from mixer_jax.checkpoints.surgery import count_classes
from mixer_jax.checkpoints.wrapped import split_choice, unwrap
from mixer_jax.classes import Names, from_json, has_names, imagenet_names, to_json, unnamed
from mixer_jax.errors import UserError, as_message
from mixer_jax.hosts.agreement import agree
from mixer_jax.models.identify import ModelSpec, identify
from mixer_jax.models.registry import make_model, param_shapes

# Formats whose models expect different ranges of pixels. Models in the formats of the paper's authors expect [-1, 1].
ANY_RANGE = ("timm", "transformers")
# Metadata about training, which is copied from a run to every file that is made from it: config.loss.kind, config.model.dtype.
TRAINED = ("loss", "dtype")
OLD_SOURCE_FORMAT = "source_layout"  # The metadata's name of a file's source format before December 2026. Now "source_format".
OTHER_FLOATS = ("float16", "bfloat16", "float64")
SUFFIXES = {".npz": "released", ".safetensors": "timm"}  # {suffix of a file: the format that it is written in by default}
# Endings of files that we do not write. Any other ending belongs to the name of a run's folder, such as runs/lr0.1.
FOREIGN_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".h5", ".hdf5", ".msgpack", ".pkl", ".npy", ".onnx", ".zip", ".tar", ".gz")


@dataclasses.dataclass(frozen=True)
class Weights:
    """The parameters of one model, in host memory, and what is known about them.

    Attributes:
      arrays: the parameters, by their paths in our parameter tree.
      path: the path or URL that they were read from. One on the Hub names the commit and the file.
      format: "run", or the name of a checkpoint format in formats.py.
      step: the step of the run that they come from, or 0 if it is not known.
      metadata: what the file states about itself.
      class_names: the names of the head's classes. Classes without names have their numbers. Empty if there is no head.
    """

    arrays: Arrays
    path: str
    format: str
    step: int
    metadata: dict[str, str]
    class_names: Names = ()

    @functools.cached_property
    def model(self) -> ModelSpec:
        """The model that has these parameters.

        Raises UserError if no model that we know has them. If a model is similar, the error lists the differences.
        """
        model = identify(signatures(self.arrays))
        if model is None:
            raise UserError(f"{self.path}: these are not the parameters of a Mixer, ViT or BiT of ours.")
        lines = differences(expected_signatures(model), signatures(self.arrays))
        if lines:
            raise UserError(f"{self.path} looks like {model}, but does not fit it:\n  " + "\n  ".join(lines))
        return with_permutation(model, self.metadata, self.path)


def load_weights(path: str) -> Weights:
    """Load parameters from a run or from a file.

    If anything is done besides reading, such as converting to float32, one line on standard error says so.

    Args:
      path: one of the following:
        RUN: the newest undamaged step of a run's folder, and its averaged parameters if the run keeps them.
        RUN/checkpoints/STEP or RUN/best: one checkpoint of a run.
        FILE.npz or FILE.safetensors.
        MODEL.safetensors.index.json, which names several files.
        FOLDER: the weights in a folder of files: its index or model.safetensors, or else its only .safetensors or .npz file.
        released:NAME: a file that the paper's authors released (released.py). It is downloaded once.
        hf://OWNER/NAME[@REVISION][/FILE]: a file, or the weights, in a repository of the Hugging Face Hub (hub.py).
        https://HOST/FILE: any of these files on a server.
        SCHEME://BUCKET/FILE: any of these files in a bucket. The scheme needs a library that may not be installed.
        FILE#PREFIX: the parameters under a prefix, in a file that holds several sets of parameters.

    Raises:
      UserError: nothing is there, or it is damaged, malicious or in no format that we know. In a run of several hosts, all hosts
        raise it if they did not read the same parameters.
    """
    weights = _load(path)
    agree("weights", lambda: {"parameters (SHA-256)": params_sha256(weights.arrays), "their classes": weights.class_names})
    return weights


def _load(path: str) -> Weights:
    """Load parameters from any path that `load_weights` accepts, on this host alone."""
    path = os.path.expanduser(path)
    if is_released(path):
        return _load_file(fetch(path), path, None)
    file, chosen = split_choice(path) if not os.path.lexists(path) else (path, None)
    with naming(file):
        if file.startswith(hub.SCHEME):
            file = hub.locate(file)
            path = file if chosen is None else f"{file}#{chosen}"
        elif Path(file).is_dir() and not (Path(file) / "checkpoints").exists():
            name = choose_file(entry.name for entry in Path(file).iterdir())
            file = os.path.join(file, name) if name else file
    is_named_as_file = Path(file).suffix in SUFFIXES and not Path(file).is_dir()
    in_bucket = is_run_in_bucket(file)
    if is_named_as_file or file.endswith(INDEX) or ("://" in file and not in_bucket) or Path(file).is_file():
        return _load_file(file, path, chosen)
    arrays, meta = load_run_in_bucket(path) if in_bucket else load_run(path)
    check_finite(arrays, path)
    return Weights(arrays, path, "run", meta["step"], _metadata_of_run(meta), _class_names(meta, arrays, path))


def _load_file(file: str, path: str, chosen: str | None) -> Weights:
    """Load one file, or an index and its files.

    `path` is what the user typed, for messages: `file` itself, or FILE#PREFIX. `chosen` is the prefix, or None.
    """
    arrays, metadata, sharded = _read(file)
    try:
        arrays, unwrapped = unwrap(arrays, chosen)
        format = find_format(arrays)
        if format is None:
            first = ", ".join(sorted(arrays)[:3])
            raise UserError(f"It is in no format of Mixer, ViT or BiT that we know: its {len(arrays)} arrays are {first}, ...")
        arrays = format.to_ours(arrays)
    except UserError as error:
        raise UserError(f"{path}: {str(error).replace('FILE#', f'{file}#')}") from error
    if "params_sha256" in metadata and metadata["params_sha256"] != params_sha256(arrays):
        raise UserError(f"{path}: its parameters are not those that it was written with (metadata: params_sha256).")
    arrays, converted = to_float32(arrays, path)
    if note := ", ".join(filter(None, (sharded, unwrapped, converted))):
        print(as_message(f"{path}: {note}."), file=sys.stderr)  # Some commands promise a single value on standard output.
    check_finite(arrays, path)
    step = int(metadata["step"]) if re.fullmatch(r"[0-9]{1,15}", metadata.get("step", "")) else 0
    recorded = {"class_names": _recorded(metadata, "class_names")} if "class_names" in metadata else {}
    names = _class_names(recorded, arrays, path)
    if not recorded and "params_sha256" not in metadata:  # Another project wrote this file. Other projects store no class names.
        names = imagenet_names(len(names)) or names
    return Weights(arrays, path, format.name, step, metadata, names)


def _read(file: str) -> tuple[Arrays, dict[str, str], str]:
    """Return (arrays, metadata, a note). The note says how many files were read if there are several, and is "" for one."""
    if file.endswith(INDEX):
        arrays, note = read_sharded(file)
        return arrays, {}, note
    with local_copy(file) as local_path:
        return *read_arrays(local_path), ""


def to_float32(arrays: Arrays, where: str) -> tuple[Arrays, str]:
    """Return (arrays, a note), with arrays of other floating-point types converted to float32, the type of our parameters.

    The note says what was converted, and is "" if nothing was. Raises UserError for a finite value that float32 cannot hold.
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
    """Raise UserError if any value is not finite. The error names the first such array."""
    for name, x in arrays.items():
        if count := x.size - int(np.count_nonzero(np.isfinite(x))):
            raise UserError(
                f"{where}: {name} holds {count} of {x.size} values that are not finite (NaN or infinite): no answer of such a "
                "model means anything. Use an earlier checkpoint, or copy the file again."
            )


def _class_names(recorded: dict, arrays: Arrays, path: str) -> Names:
    """Return the class names that a file or run records, or the classes' numbers if it records none.

    Raises UserError if `recorded["class_names"]` is not a list of names, or if the head has another number of classes.
    """
    count = count_classes(arrays)
    if "class_names" not in recorded:
        return unnamed(count)
    try:
        names = from_json(recorded["class_names"])
    except ValueError as error:
        raise UserError(f"{path}: what it says of its classes is damaged: {error}.") from error
    if len(names) != count:
        raise UserError(f"{path} says that it has {len(names)} classes, and its head has {count}: it is damaged or altered.")
    return names


def _metadata_of_run(meta: dict) -> dict[str, str]:
    """Return the metadata of a run: its loss, dtype, permutation and preprocessing of images, as far as they are known.

    A run's folder that `convert` wrote has them in its checkpoint. For other runs, the loss and the dtype come from the config,
    and the preprocessing is that of the first classification evaluator.
    """
    permuted = permutation_metadata(meta)
    if "preprocessing" in meta:
        return permuted | {name: meta[name] for name in ("preprocessing", OLD_SOURCE_FORMAT, *TRAINED) if name in meta}
    config = meta["config"]
    trained = permuted | ({"loss": config["loss"]["kind"], "dtype": config["model"]["dtype"]} if "loss" in config else {})
    for evaluator in meta["config"].get("evals", {}).values():
        if evaluator["kind"] == "classification":
            steps = preprocessing(config["image_size"], evaluator["resize"], evaluator["resize_size"])
            return trained | {"preprocessing": json.dumps(steps)}
    return trained


def preprocessing_of(weights: Weights) -> dict:
    """Return the steps that turn an image into the model's input, as the weights state them or else as in the paper.

    "value_range" is None if it is not known, because models in one format of ANY_RANGE were trained with different ranges.
    """
    if steps := _stated_preprocessing(weights):
        return steps
    return preprocessing(weights.model.image_size) | ({"value_range": None} if weights.format in ANY_RANGE else {})


def _stated_preprocessing(weights: Weights) -> dict:
    """Return the preprocessing that the weights' metadata states, or {} if it states none.

    Before December 2026, `convert` stated the range [-1, 1] for every file, although it did not know the range of those that it
    had read from a format of ANY_RANGE. Such a file has the metadata OLD_SOURCE_FORMAT. Its range counts as unknown, unless its
    step says that the weights come from a run of ours.
    """
    steps = _recorded(weights.metadata, "preprocessing")
    if not isinstance(steps, dict):
        return {}
    if steps.get("value_range") == [-1, 1] and weights.metadata.get(OLD_SOURCE_FORMAT) in ANY_RANGE and not weights.step:
        steps["value_range"] = None
    return steps


def range_note(weights: Weights) -> str:
    """Return a warning if the weights may expect another range of pixels than the one they are given, [-1, 1], or else ""."""
    default = None if weights.format in ANY_RANGE else [-1, 1]
    steps = _stated_preprocessing(weights)
    return value_range_note(steps.get("value_range") if steps else default, weights.path)


def value_range_note(value_range: object, path: str) -> str:
    """Return a warning if a model's range of pixels is not the one that it is given, [-1, 1], or is None, or else ""."""
    if value_range == [-1, 1]:
        return ""
    description = "not known" if value_range is None else f"said to be {json.dumps(value_range)[:50]}"
    return f"{path}: the range of pixels that it expects is {description}. It is given [-1, 1], and may answer wrongly."


def preprocessing(image_size: int, resize: str = "small", resize_size: int = 0) -> dict:
    """Return the steps that turn an image into a model's input.

    The defaults are those of the paper (supplement C) and of our evaluators. `resize` is "small", "square" or "whole", which is
    "square" with a `resize_size` of `image_size`. If `resize_size` is 0, it is 256 / 224 of `image_size`.
    """
    if resize == "whole":
        resize, resize_size = "square", image_size
    return {
        "resize": resize,  # "small": the shorter side becomes resize_size pixels. "square": both sides do.
        "resize_size": resize_size or round(image_size * 256 / 224),
        "interpolation": "bilinear",
        "central_crop": image_size,
        "channels": "RGB",
        "value_range": [-1, 1],
    }


def save_weights(weights: Weights, path: str, format: str | None = None) -> None:
    """Write a .npz or .safetensors file, or a new run's folder with one checkpoint.

    Args:
      weights: what to write.
      path: a new file, whose suffix (.npz or .safetensors) decides its kind, or else a new run's folder.
      format: the checkpoint format of the file. None for the default of SUFFIXES.

    Raises:
      UserError: `path` exists already, or `format` does not fit the kind of file, the model's family or its number of heads.
    """
    suffix = Path(path).suffix
    if suffix in SUFFIXES:
        refuse_file(weights.metadata, path)
        table = get_format(format or SUFFIXES[suffix], weights.model.family)
        converted = table.to_theirs(weights.arrays)
        if signatures(table.to_ours(converted)) != signatures(weights.arrays):
            raise UserError(
                f"The {table.name} format does not say how many heads a ViT has, and {weights.model} has an unusual number."
            )
        metadata = file_metadata(weights)
        if suffix == ".npz" and "class_names" in metadata and len(json.dumps(metadata)) > npz.COMMENT_LIMIT:
            del metadata["class_names"]
            print(f"{path} has no room for the names of its {len(weights.class_names)} classes: a .safetensors file has.")
        write_arrays(path, converted, metadata)
        return
    if suffix in FOREIGN_SUFFIXES or format:
        raise UserError(f"--to={path}: a file must end in {' or '.join(SUFFIXES)}, and any other path is a run's folder.")
    if Path(path).exists():
        raise UserError(f"{path} exists already: choose a new folder.")
    checkpoints = Checkpoints(path, keep=2)
    names = {"class_names": to_json(weights.class_names)} if has_names(weights.class_names) else {}
    meta = file_metadata(weights) | names | {"step": weights.step}
    checkpoints.save(weights.step, {"params": tree_of(weights.arrays)}, meta)
    checkpoints.finish()


def convert(source: str, target: str, format: str | None = None) -> Weights:
    """Write the weights of `source` to `target`, read them again, print how they compare, and return what was read.

    Raises UserError as `load_weights` and `save_weights` do, and also if the source is not a complete model or if the parameters
    that are read again are not identical.
    """
    before = load_weights(source)
    save_weights(before, target, format)
    after = load_weights(target)
    digest = params_sha256(after.arrays)
    if params_sha256(before.arrays) != digest:
        raise UserError(f"{target} does not hold the parameters that were written to it: the disk or its memory is at fault.")
    difference = np.max(np.abs(np.subtract(*fixed_logits(before, after))))
    print(f"{source} ({before.format}) -> {target} ({after.format}): {before.model}")
    print(f"  parameters identical, bit for bit: SHA-256 {digest}")
    print(f"  largest difference of logits on two fixed random images: {difference:.3g}")
    return after


def fixed_logits(*weights: Weights) -> list[np.ndarray]:
    """Return the logits on two fixed random images, float32 [2, K], for each of several sets of parameters of one model."""
    model = weights[0].model
    shape = (2, model.image_size, model.image_size, 3)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    apply = jax.jit(make_model(model.config(), model.num_classes).apply)
    return [np.asarray(apply({"params": tree_of(item.arrays)}, images)[0]) for item in weights]


def file_metadata(weights: Weights) -> dict[str, str]:
    """Return the metadata of a file that we write: source, digest, model, preprocessing, versions and class names."""
    model = weights.model
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    names = {"class_names": json.dumps(to_json(weights.class_names))} if has_names(weights.class_names) else {}
    trained = {name: weights.metadata[name] for name in TRAINED if name in weights.metadata}
    return (
        names
        | trained
        | permutation_metadata(weights.metadata)
        | {
            "source": weights.path,
            "source_format": weights.format,
            "step": str(weights.step),
            "params_sha256": params_sha256(weights.arrays),
            "model": str(model),
            "config": json.dumps(model.options()),
            "preprocessing": json.dumps(preprocessing_of(weights)),
            "versions": json.dumps(versions),
        }
    )


def _recorded(metadata: dict[str, str], name: str) -> Any:
    """Return the JSON value that metadata holds under a name, or None if there is none or it is not JSON."""
    try:
        return json.loads(metadata[name])
    except (KeyError, ValueError, RecursionError):
        return None


def expected_signatures(model: ModelSpec) -> dict[str, tuple]:
    """Return {path: (dtype, shape)} of a model's parameters, without allocating them."""
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), np.float32)
    return signatures(param_shapes(make_model(model.config(), model.num_classes), images))


def tree_of(arrays: Arrays) -> dict:
    """Return a nested dict for arrays by path: {"stem/kernel": x} becomes {"stem": {"kernel": x}}."""
    return traverse_util.unflatten_dict(arrays, sep="/")
