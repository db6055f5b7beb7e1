"""Starting a run from another run's parameters: what is restored, what is replaced, what is dropped."""

import jax
from jax.sharding import Mesh

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.checkpoints.manager import differences, kinds, load_weights
from mixer_jax.config import UserError
from mixer_jax.parallel import path_name

HEAD = "head/"


def init_from(path: str, params: dict, mesh: Mesh, head: str) -> tuple[dict, dict[str, list[str]]]:
    """(parameters, listing): `params` with all that `path` has; the head stays as in `params` when head="new".

    The listing names the paths that were "restored", "replaced" (in both, kept from `params`) and "dropped" (in `path` only).
    Raises UserError, with everything that differs, when another array than the head's does not fit.
    """
    loaded, _ = load_weights(path, mesh)
    here, there = kinds(params), kinds(loaded)

    def wanted(name: str) -> bool:
        return head == "restore" or not name.startswith(HEAD)

    lines = differences({n: here[n] for n in here if wanted(n)}, {n: there[n] for n in there if wanted(n)})
    if lines:
        resized = any("token_mixing" in line for line in lines)
        hint = " Another image or patch size needs surgery on the token-mixing parameters (not built yet)." if resized else ""
        raise UserError(f"config.init_from={path} does not fit this model.{hint}\n  " + "\n  ".join(lines))
    arrays = named_arrays(loaded)
    merged = jax.tree_util.tree_map_with_path(lambda p, x: arrays[path_name(p)] if wanted(path_name(p)) else x, params)
    return merged, {
        "restored": [name for name in here if wanted(name)],
        "replaced": [name for name in here if not wanted(name) and name in there],
        "dropped": [name for name in there if name not in here],
    }
