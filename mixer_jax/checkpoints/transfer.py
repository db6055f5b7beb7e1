"""Start a model from trained parameters: change them if only the resolution differs, and report everything that does not fit."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax

from mixer_jax.checkpoints.digest import named_arrays, params_sha256
from mixer_jax.checkpoints.formats import Arrays
from mixer_jax.checkpoints.manager import differences, signatures
from mixer_jax.checkpoints.permuted import check_permutation
from mixer_jax.checkpoints.surgery import fit_resolution, subset_head
from mixer_jax.checkpoints.weights import Weights, load_weights, range_note
from mixer_jax.classes import Names, map_classes
from mixer_jax.errors import UserError
from mixer_jax.models.identify import identify
from mixer_jax.parallel import from_host, path_name

HEAD = "head/"
# A ViT's hidden layer before the head. It serves pre-training and is removed with the head (arXiv 2010.11929, section 3.2).
PRE_LOGITS = "pre_logits/"


def fit(weights: Weights, shapes: dict, permutation: str = "none", image_size: int = 0) -> Arrays:
    """Return the arrays of `weights`, changed if necessary to the resolution of a model with parameters of these shapes.

    Prints one line if the resolution was changed, and one if the weights may expect another range of pixels. Raises UserError if
    the arrays do not fit. It names everything that differs, both models and the options to change. Raises it too if the weights
    were trained with another permutation, or with one of images of another size.

    Args:
      weights: the trained parameters.
      shapes: the tree of the model's parameters, as arrays or as ShapeDtypeStructs.
      permutation: config.model.permutation of the model.
      image_size: config.image_size. Only a model with a permutation needs it.
    """
    check_permutation(weights.metadata, weights.path, permutation, image_size)
    expected = signatures(shapes)
    arrays, change = fit_resolution(weights.arrays, expected)
    if change:
        print(f"{weights.path}: {change}.")
    if note := range_note(weights):
        print(note)
    lines = differences(expected, signatures(arrays))
    if lines:
        raise UserError(f"{weights.path} does not fit this model. {_explain(expected, weights)}\n  " + "\n  ".join(lines))
    return arrays


def init_from(
    path: str,
    params: dict,
    head: str,
    classes_file: str = "",
    class_names: Names | None = None,
    permutation: str = "none",
    image_size: int = 0,
) -> tuple[dict, dict[str, list[str]], dict[str, Any]]:
    """Return (parameters, listing, origin): `params` with the values that `path` holds, sharded as `params` are.

    The listing names the paths that were "restored" from `path`, "replaced" (in both, with the values of `params`) and "dropped"
    (only in `path`). The origin records what was read: the path, the step and the SHA-256 of all its parameters.

    Args:
      path: a run's folder or a file of weights, as `load_weights` reads them.
      params: the new model's parameters.
      head: "new" keeps the head of `params` and drops a pre-logits layer that the model does not have. "restore" takes both from
        `path`. "subset" takes some columns of the head in `path`.
      classes_file: a text file that says which columns "subset" takes: one number per line, in the order of the new model's
        classes. Without a file, "subset" takes the columns whose classes have the names in `class_names`.
      class_names: the names of the new model's classes. Columns that `path` has in another order are put into this order.
      permutation: config.model.permutation of the new model.
      image_size: config.image_size. Only a model with a permutation needs it.

    Raises:
      UserError: an array does not fit (the message names everything that differs), `path` does not have one of the classes, or it
        was trained with another permutation.
    """
    weights = load_weights(path)
    names, arrays = set(named_arrays(params)), weights.arrays
    if head != "new":
        arrays = _choose_classes(weights, head, classes_file, class_names)

    def is_restored(name: str) -> bool:
        return head != "new" or not (name.startswith(HEAD) or (name.startswith(PRE_LOGITS) and name not in names))

    fitted = fit(
        dataclasses.replace(weights, arrays={n: x for n, x in arrays.items() if is_restored(n)}),
        {n: x for n, x in named_arrays(params).items() if is_restored(n)},
        permutation,
        image_size,
    )
    merged = jax.tree_util.tree_map_with_path(
        lambda p, x: from_host(fitted[path_name(p)], x.sharding) if is_restored(path_name(p)) else x, params
    )
    listing = {
        "restored": sorted(fitted),
        "replaced": sorted(name for name in names - fitted.keys() if name in arrays),
        "dropped": sorted(arrays.keys() - names),
    }
    return merged, listing, {"path": weights.path, "step": weights.step, "params_sha256": params_sha256(weights.arrays)}


def _choose_classes(weights: Weights, head: str, classes_file: str, class_names: Names | None) -> Arrays:
    """Return the arrays of `weights` with the head's columns for the new model's classes, in the order of `class_names`."""
    arrays, head_names = weights.arrays, weights.class_names
    if classes_file:
        chosen = read_classes(classes_file)
        arrays = subset_head(arrays, chosen)
        head_names = tuple(head_names[number] for number in chosen)
    if class_names is None or (not classes_file and head == "restore" and len(class_names) != len(head_names)):
        return arrays  # If the numbers of classes differ, `fit` raises an error that explains it.
    classes = map_classes(class_names, "the training data", head_names, weights.path)
    if classes.note:
        print(classes.note)
    is_same = classes.is_identity and len(head_names) == len(class_names)
    return arrays if is_same else subset_head(arrays, list(classes.numbers))


def read_classes(file: str) -> list[int]:
    """Return the class numbers in a text file, which has one per line. Raises UserError if it holds anything else."""
    file = os.path.expanduser(file)
    if not Path(file).is_file():
        raise UserError(f"config.init_classes={file!r}: there is no such file. It lists the classes to keep, a number a line.")
    lines = Path(file).read_text().split()
    wrong = [line for line in lines if not line.isdecimal()]
    if wrong or not lines:
        raise UserError(
            f"config.init_classes={file}: expected class numbers, one a line, and found {wrong[0] if wrong else 'none'}."
        )
    return [int(line) for line in lines]


def _explain(expected: dict[str, tuple], weights: Weights) -> str:
    """Return sentences that name both models and the flags that fit the config to the weights; "" if there is no difference."""
    requested, stored = identify(expected), identify(signatures(weights.arrays))
    if stored is None or requested is None or requested == stored:
        return ""
    old, new = requested.options(), stored.options()
    flags = " ".join(f"--config.{name}={new[name]}" for name in new if new[name] != old[name] and new[name] is not None)
    text = f"It holds {stored}; the config asks for {requested}. To take the weights as they are: {flags}."
    if stored.family == "mixer" and requested.image_size != stored.image_size:
        text += f" For surgery to {requested.image_size} px, model.tile_size={stored.image_size} makes tiles and 0 interpolates."
    return text
