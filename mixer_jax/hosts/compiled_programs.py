"""The programs that XLA compiled, kept for the next start."""

import os
import platform
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import jax

from mixer_jax.bucket import is_in_bucket, set_up_gcsfs
from mixer_jax.errors import UserError
from mixer_jax.storage import cache_folder, private_folder

_UNREADABLE = re.compile(r"Error reading persistent compilation cache entry for '([^'/]+)'")  # The beginning of JAX's warning.


def keep_compiled_programs(place: str = "") -> None:
    """Keep compiled programs, so that a restart reads what an earlier start compiled.

    `place` is config.compilation_cache. If it is empty, the directory is that of JAX_COMPILATION_CACHE_DIR or, without one, a
    folder of this user and this machine, because a program that was compiled for one CPU may use instructions that another CPU
    does not have. If there is no directory that can be used, every start compiles.

    Raises UserError if `place` cannot be used.
    """
    if place and is_in_bucket(place):
        set_up_gcsfs()
    elif place and not private_folder(Path(place).expanduser()):
        raise UserError(f"config.compilation_cache={place}: you may not write there. Name another directory.")
    elif not place and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        place = str(cache_folder(f"compiled/{platform.node()}") or "")
    if place:
        jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    _replace_damaged_programs()


def _replace_damaged_programs() -> None:
    """Remove a kept program that JAX warns it cannot read, so that JAX keeps what it then compiles.

    A kill while JAX writes a program to a disk leaves a part of it, and JAX never replaces a file that is there: each later start
    would warn and compile. The warning has the program's name, with which the names of its files begin. All of this name are
    removed, since it does not say which of them is damaged. An object in a bucket is whole, and stays.
    """
    show = warnings.showwarning
    if getattr(show, "__module__", "") == __name__:
        return

    def show_or_replace(message: Warning | str, *where: Any, **options: Any) -> None:
        unreadable, folder = _UNREADABLE.match(str(message)), jax.config.jax_compilation_cache_dir
        if not unreadable or not folder or is_in_bucket(folder):
            return show(message, *where, **options)
        for file in Path(folder).glob(f"{unreadable[1]}-*"):
            file.unlink(missing_ok=True)
        print(f"The compiled program {unreadable[1]} in {folder} is damaged. It is compiled again.", file=sys.stderr)

    warnings.showwarning = show_or_replace
