"""Trained parameters into a model of a config's: surgery where only the resolution differs, and everything that does not fit."""

from pathlib import Path
from typing import Any

import jax

from mixer_jax.checkpoints.digest import named_arrays, params_sha256
from mixer_jax.checkpoints.formats import Arrays
from mixer_jax.checkpoints.manager import differences, signatures
from mixer_jax.checkpoints.surgery import fit_resolution, subset_head
from mixer_jax.checkpoints.weights import Weights, load_weights, range_note
from mixer_jax.classes import Names, map_classes
from mixer_jax.errors import UserError
from mixer_jax.models.identify import identify
from mixer_jax.parallel import from_host, path_name

HEAD = "head/"
PRE_LOGITS = "pre_logits/"  # a ViT's layer for pre-training, which goes with the head (arXiv 2010.11929, section 3.2)


def fit(weights: Weights, shapes: dict) -> Arrays:
    """The arrays of `weights` for a model with parameters of these shapes; says in one line what surgery was needed.

    Raises UserError with everything that differs, what both models are and which options to change.
    """
    expected = signatures(shapes)
    arrays, said = fit_resolution(weights.arrays, expected)
    if said:
        print(f"{weights.path}: {said}.")
    if note := range_note(weights):
        print(note)
    lines = differences(expected, signatures(arrays))
    if lines:
        raise UserError(f"{weights.path} does not fit this model. {_explain(expected, weights)}\n  " + "\n  ".join(lines))
    return arrays


def init_from(
    path: str, params: dict, head: str, classes_file: str = "", class_names: Names | None = None
) -> tuple[dict, dict[str, list[str]], dict[str, Any]]:
    """Return (parameters, listing, origin): `params` with all that `path` has (see weights.load_weights), sharded as they are.

    The listing names the paths that were "restored", "replaced" (in both, kept from `params`) and "dropped". The origin says, for
    the records of a run, what was read: path, step and the SHA-256 of all its parameters. Raises UserError,
    with everything that differs, when an array does not fit, and for a class that `path` does not have.

    Args:
      path: what `load_weights` takes.
      params: the new model's parameters.
      head: with "new", the head, and a ViT's pre-logits layer that the model does not have, stay as in `params`. "restore" takes
        them too. "subset" takes some of the head's columns.
      classes_file: with "subset", which columns: a number a line, in the order of our classes. Without it, those with our names.
      class_names: the names of our classes. Columns that are in another order in `path` are put into ours.
    """
    weights = load_weights(path)
    names, there = set(named_arrays(params)), weights.arrays
    if head != "new":
        there = _choose_classes(weights, head, classes_file, class_names)

    def wanted(name: str) -> bool:
        return head != "new" or not (name.startswith(HEAD) or (name.startswith(PRE_LOGITS) and name not in names))

    fitted = fit(
        Weights({n: x for n, x in there.items() if wanted(n)}, path, weights.format, weights.step, weights.metadata),
        {n: x for n, x in named_arrays(params).items() if wanted(n)},
    )
    merged = jax.tree_util.tree_map_with_path(
        lambda p, x: from_host(fitted[path_name(p)], x.sharding) if wanted(path_name(p)) else x, params
    )
    listing = {
        "restored": sorted(fitted),
        "replaced": sorted(name for name in names - fitted.keys() if name in there),
        "dropped": sorted(there.keys() - names),
    }
    return merged, listing, {"path": path, "step": weights.step, "params_sha256": params_sha256(weights.arrays)}


def _choose_classes(weights: Weights, head: str, classes_file: str, class_names: Names | None) -> Arrays:
    """Return the arrays of `weights` with the head's columns that stand for our classes, in our order."""
    there, theirs = weights.arrays, weights.class_names
    if classes_file:
        chosen = read_classes(classes_file)
        there = subset_head(there, chosen)
        theirs = tuple(theirs[number] for number in chosen)
    if class_names is None or (not classes_file and head == "restore" and len(class_names) != len(theirs)):
        return there  # of another shape, which `fit` explains
    classes = map_classes(class_names, "the training data", theirs, weights.path)
    if classes.note:
        print(classes.note)
    return there if classes.is_identity and len(theirs) == len(class_names) else subset_head(there, list(classes.numbers))


def read_classes(file: str) -> list[int]:
    """The numbers in a text file, one a line. Raises UserError for anything else in it."""
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
    """What the weights are, what the config asks for, and the options that would make it ask for the former."""
    asked, found = identify(expected), identify(signatures(weights.arrays))
    if found is None or asked is None or asked == found:
        return ""
    ask, find = asked.options(), found.options()
    flags = " ".join(f"--config.{name}={find[name]}" for name in find if find[name] != ask[name] and find[name] is not None)
    said = f"It holds {found}; the config asks for {asked}. To take the weights as they are: {flags}."
    if found.family == "mixer" and asked.image_size != found.image_size:
        said += f" For surgery to {asked.image_size} px, model.tile_size={found.image_size} makes tiles and 0 interpolates."
    return said
