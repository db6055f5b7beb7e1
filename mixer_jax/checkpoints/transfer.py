"""Starting a run from another run's parameters: what is restored, what is replaced, what is dropped."""

import jax
from jax.sharding import Mesh

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.checkpoints.manager import differences, kinds, load_weights
from mixer_jax.config import UserError

HEAD = "head/"


def init_from(path: str, params: dict, mesh: Mesh, head: str) -> tuple[dict, dict[str, list[str]]]:
    """(parameters, listing): `params` with all that `path` has; the head stays as in `params` when head="new".

    The listing names the paths that were "restored", "replaced" (in both, kept from `params`) and "dropped" (in `path` only).
    Raises UserError, with everything that differs, when another array than the head's does not fit.
    """
    loaded, _ = load_weights(path, mesh)
    expected, found = kinds(params), kinds(loaded)
    if head == "new":
        expected, found = ({n: kind for n, kind in kinds_.items() if not n.startswith(HEAD)} for kinds_ in (expected, found))
    lines = differences(expected, found)
    if lines:
        hint = " Another image or patch size needs surgery on the token-mixing parameters (not built yet)." if any(
            "token_mixing" in line for line in lines
        ) else ""  # fmt: skip
        raise UserError(f"config.init_from={path} does not fit this model.{hint}\n  " + "\n  ".join(lines))
    restored = named_arrays(loaded)
    merged = jax.tree_util.tree_map_with_path(
        lambda path, x: restored[name] if (name := jax.tree_util.keystr(path, simple=True, separator="/")) in expected else x,
        params,
    )
    names = kinds(params)
    return merged, {
        "restored": sorted(expected),
        "replaced": sorted(name for name in names if name not in expected and name in restored),
        "dropped": sorted(name for name in restored if name not in names),
    }
