"""Variables of the environment under which a program would compute something else, or break. JAX reads them when it is imported.

A run is a function of its config. So what changes numbers behind the config's back is refused, unless it is recorded in run.json
with every start: XLA_FLAGS, LIBTPU_INIT_ARGS and the precision of matrix products (parallel.device_facts).
"""

import os
from collections.abc import Mapping

from mixer_jax.errors import UserError

OFF, ON = ("0", "false", "f", "no", "n", "off"), ("1", "true", "t", "yes", "y", "on")
NEEDED = {  # variable: (its values that do no harm, what other values do)
    "JAX_ENABLE_X64": (OFF, "makes arrays of 64 bits where checkpoints and files hold 32"),
    "JAX_DISABLE_JIT": (OFF, "leaves steps uncompiled, which are compiled ahead here"),
    "JAX_NUMPY_DTYPE_PROMOTION": (("standard",), "forbids products of different types, which models have"),
    "JAX_DEFAULT_PRNG_IMPL": (("threefry2x32",), "gives every seed another meaning"),
    "JAX_THREEFRY_PARTITIONABLE": (ON, "gives every seed another meaning"),
    "JAX_RANDOM_SEED_OFFSET": (("0",), "gives every seed another meaning"),
}


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError for a variable that would change or break what is computed."""
    for name, (harmless, effect) in NEEDED.items():
        value = environment.get(name, "")
        if value and value.lower() not in harmless:
            raise UserError(f"The environment has {name}={value}, which {effect}. Unset it: unset {name}")
