"""Refuses environment variables that would change what a program computes, or break it. JAX reads them when it is imported.

A run must be a function of its config. So an environment variable that changes numbers is refused, unless every start of the run
records it in run.json. Recorded are XLA_FLAGS, LIBTPU_INIT_ARGS and the precision of matrix products (parallel.device_facts).
"""

import ast
import linecache
import os
import sys
import threading
from collections.abc import Mapping

from mixer_jax.errors import UserError

OFF, ON = ("0", "false", "f", "no", "n", "off"), ("1", "true", "t", "yes", "y", "on")
# {variable: (values that do no harm, what all other values do)}
HARMLESS_VALUES = {
    "JAX_ENABLE_X64": (OFF, "makes arrays of 64 bits, while checkpoints and files hold 32"),
    "JAX_DISABLE_JIT": (OFF, "prevents the compilation of the training step"),
    "JAX_NUMPY_DTYPE_PROMOTION": (("standard",), "forbids products of arrays of different types, which models need"),
    "JAX_DEFAULT_PRNG_IMPL": (("threefry2x32",), "gives every seed another meaning"),
    "JAX_THREEFRY_PARTITIONABLE": (ON, "gives every seed another meaning"),
    "JAX_RANDOM_SEED_OFFSET": (("0",), "gives every seed another meaning"),
}


def check_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError for a variable that would change what is computed, or break the program."""
    for name, (harmless, effect) in HARMLESS_VALUES.items():
        value = environment.get(name, "")
        if value and value.lower() not in harmless:
            raise UserError(f"The environment has {name}={value}, which {effect}. Unset it: unset {name}")


def check_script() -> None:
    """Raise UserError if each worker process would run the user's script again.

    A new process imports the script that was started. So the statement at the script's top level that starts worker processes
    must stand under `if __name__ == "__main__":`.
    """
    program = sys.modules["__main__"]
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(program)):
        frame = frame.f_back
    file = getattr(program, "__file__", None)
    if frame is None or file is None:  # The code is in a notebook or was typed, so worker processes do not import it.
        return
    try:
        statements = ast.parse("".join(linecache.getlines(file))).body
    except (SyntaxError, ValueError):  # The source cannot be parsed, so the check is not possible.
        return
    line = frame.f_lineno
    running = [statement for statement in statements if statement.lineno <= line][-1:]
    if running and not any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(running[0])):
        raise UserError(
            f"Line {line} of {file} starts worker processes, and each of them would run the script anew. Put the call under "
            '`if __name__ == "__main__":`, or decode in threads (config.loader.processes = False).'
        )
