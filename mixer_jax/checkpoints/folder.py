"""Choose the file of weights in a folder or in a repository, by the names of its files alone."""

from collections.abc import Iterable

from mixer_jax.checkpoints.refusal import Refused

INDEX, SINGLE = ".safetensors.index.json", "model.safetensors"
SHOWN_FILES = 5


def choose_file(names: Iterable[str]) -> str | None:
    """Return the name of the file of weights, or None if there is none.

    It is the index of several .safetensors files or model.safetensors, or else the only .safetensors or .npz file. Raises Refused
    if there are several.
    """
    names = sorted(names)
    usual = [name for name in names if name.endswith(INDEX) or name.rpartition("/")[2] == SINGLE]
    candidates = usual or [name for name in names if name.endswith((".safetensors", ".npz"))]
    if len(candidates) > 1:
        more = " and more" if len(candidates) > SHOWN_FILES else ""
        raise Refused(f"holds several sets of weights: {', '.join(candidates[:SHOWN_FILES])}{more}. Name one of them")
    return candidates[0] if candidates else None
