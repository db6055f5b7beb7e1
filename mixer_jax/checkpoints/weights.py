"""Parameters from anywhere and to anywhere: runs of ours, released .npz files, timm's safetensors; told apart by what they hold.

Not here: the bytes of files (files.py), the names in them (layouts.py), making parameters fit another model (surgery.py).
"""

import dataclasses
import functools
import importlib.metadata
import json
import re
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.files import local_copy, read_arrays, write_arrays
from mixer_jax.checkpoints.formats import Arrays, find_layout, get_layout
from mixer_jax.checkpoints.manager import Checkpoints, differences, kinds, load_run
from mixer_jax.errors import UserError
from mixer_jax.models.identify import ModelSpec, identify
from mixer_jax.models.registry import make_model

SUFFIXES = {".npz": "released", ".safetensors": "timm"}  # and the layout that files of the kind are written in


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters on the host."""

    arrays: Arrays  # by the paths of our own trees
    place: str  # where they were read
    layout: str  # "run", or one of layouts.py
    step: int  # of the run they come from; 0 when that is not known
    metadata: dict[str, str]  # what the file says of itself

    @functools.cached_property
    def model(self) -> ModelSpec:
        """Raises UserError when this is no model of ours, with everything that keeps it from being the nearest."""
        model = identify(kinds(self.arrays))
        if model is None:
            raise UserError(f"{self.place}: these are not the parameters of a Mixer, ViT or BiT of ours.")
        lines = differences(expected_kinds(model), kinds(self.arrays))
        if lines:
            raise UserError(f"{self.place} looks like {model}, but does not fit it:\n  " + "\n  ".join(lines))
        return model


def load_weights(place: str) -> Weights:
    """From a run's folder (its newest sound step; averaged parameters where it has them), one of its checkpoints/STEP, a .npz
    or .safetensors file, or SCHEME://BUCKET/FILE when the library of that scheme is installed.

    Raises UserError when there is nothing, when it is damaged, hostile, or in no layout that we know.
    """
    if Path(place).suffix in SUFFIXES or "://" in place or Path(place).is_file():
        return _load_file(place)
    arrays, meta = load_run(place)
    return Weights(arrays, place, "run", meta["step"], _metadata_of_run(meta))


def _load_file(place: str) -> Weights:
    with local_copy(place) as path:
        arrays, metadata = read_arrays(path)
    layout = find_layout(arrays)
    if layout is None:
        some = ", ".join(sorted(arrays)[:3])
        raise UserError(f"{place} is in no layout of Mixer, ViT or BiT that we know: its {len(arrays)} arrays are {some}, ...")
    try:
        arrays = layout.to_ours(arrays)
    except UserError as error:
        raise UserError(f"{place}: {error}") from error
    if "params_sha256" in metadata and metadata["params_sha256"] != params_sha256(arrays):
        raise UserError(f"{place}: its parameters are not those that it was written with (metadata: params_sha256).")
    step = metadata.get("step", "")
    return Weights(arrays, place, layout.name, int(step) if re.fullmatch(r"[0-9]{1,15}", step) else 0, metadata)


def _metadata_of_run(meta: dict) -> dict[str, str]:
    """How images are prepared: as `describe` wrote it, or as the run's own evaluator does; {} when neither is there."""
    if "preprocessing" in meta:
        return {"preprocessing": meta["preprocessing"]}
    for evaluator in meta["config"].get("evals", {}).values():
        if evaluator["kind"] == "classification":
            steps = preprocessing(meta["config"]["image_size"], evaluator["resize"], evaluator["resize_size"])
            return {"preprocessing": json.dumps(steps)}
    return {}


def preprocessing(image_size: int, resize: str = "small", resize_size: int = 0) -> dict:
    """How images become the model's input; the defaults are those of the paper (supplement C) and of config.classification."""
    return {
        "resize": resize,  # small: shorter side to resize_size; square: both sides
        "resize_size": resize_size or round(image_size * 256 / 224),
        "interpolation": "bilinear",
        "central_crop": image_size,
        "channels": "RGB",
        "value_range": [-1, 1],
    }


def save_weights(weights: Weights, place: str, layout: str | None = None) -> None:
    """To a .npz or .safetensors file in `layout` (None: the usual of its kind), or as the only checkpoint of a new run's folder.

    Raises UserError when the place is taken or the family has no such layout.
    """
    suffix = Path(place).suffix
    if suffix in SUFFIXES:
        table = get_layout(layout or SUFFIXES[suffix], weights.model.family)
        theirs = table.to_theirs(weights.arrays)
        if kinds(table.to_ours(theirs)) != kinds(weights.arrays):
            raise UserError(
                f"The {table.name} layout does not say how many heads a ViT has, and {weights.model} has an unusual number."
            )
        write_arrays(place, theirs, describe(weights))
        return
    if suffix or layout:
        raise UserError(f"--to={place}: a file must end in {' or '.join(SUFFIXES)}; without an ending it is a run's folder.")
    if Path(place).exists():
        raise UserError(f"{place} exists already: choose a new folder.")
    checkpoints = Checkpoints(place, keep=2)
    checkpoints.save(weights.step, {"params": tree_of(weights.arrays)}, describe(weights) | {"step": weights.step})
    checkpoints.finish()


def convert(source: str, target: str, layout: str | None = None) -> Weights:
    """Writes what `source` holds to `target`, reads it again and prints how far the two are apart. Returns what was read.

    Raises UserError as load_weights and save_weights do, and when the source is no whole model or what is read is not the same.
    """
    before = load_weights(source)
    save_weights(before, target, layout)
    after = load_weights(target)
    digest = params_sha256(after.arrays)
    if params_sha256(before.arrays) != digest:
        raise UserError(f"{target} does not hold the parameters that were written to it: the disk or its memory is at fault.")
    apart = np.max(np.abs(np.subtract(*fixed_logits(before, after))))
    print(f"{source} ({before.layout}) -> {target} ({after.layout}): {before.model}")
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


def describe(weights: Weights) -> dict[str, str]:
    """What a file that we write says of itself: source, digest, model, preprocessing and versions."""
    model = weights.model
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy")}
    return {
        "source": weights.place,
        "source_layout": weights.layout,
        "step": str(weights.step),
        "params_sha256": params_sha256(weights.arrays),
        "model": str(model),
        "config": json.dumps(model.options()),
        "preprocessing": json.dumps(_recorded(weights.metadata, "preprocessing") or preprocessing(model.image_size)),
        "versions": json.dumps(versions),
    }


def _recorded(metadata: dict[str, str], name: str) -> dict:
    """A table that a file says of itself; {} when it does not say, or something else."""
    try:
        table = json.loads(metadata[name])
    except (KeyError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def expected_kinds(model: ModelSpec) -> dict[str, tuple]:
    """{path: (dtype, shape)} of the parameters of a model. Allocates nothing."""
    images = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), np.float32)
    shapes = jax.eval_shape(make_model(model.config(), model.num_classes).init, jax.random.key(0), images)["params"]
    return kinds(shapes)


def tree_of(arrays: Arrays) -> dict:
    """{"stem/kernel": x} -> {"stem": {"kernel": x}}."""
    return traverse_util.unflatten_dict(arrays, sep="/")
