"""The supervised program: how it is run, and what its arguments tell about the run."""

import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from mixer_jax import app
from mixer_jax.errors import UserError

PROCESS_IDS = ("JAX_PROCESS_ID", "SLURM_PROCID")  # Variables that tell several processes of one machine apart.


class Program(NamedTuple):
    """A program that can be run."""

    name: str  # For messages.
    command: list[str]
    workdir: str  # The folder of the run.
    log_name: str  # The name of this machine, with the number of the process if there is one.


def read_program(words: list[str]) -> Program:
    """Return the program of a command line. Raises UserError if it cannot be run, or names no folder."""
    name, *flags = words
    workdir = flag_value("workdir", flags)
    if not workdir:
        raise UserError(f"supervise needs the run's folder, among the arguments of {name}: --workdir=RUN.")
    numbers = [flag_value("process_id", flags), *(os.environ.get(variable, "") for variable in PROCESS_IDS)]
    log_name = "-".join([platform.node() or "host", *[number for number in numbers if number][:1]])
    return Program(Path(name).name, [*find_program(name), *flags], workdir, log_name)


def find_program(name: str) -> list[str]:
    """Return the words that run a program: a file of Python, here or of this repository, or any other program of this machine.

    Raises UserError if there is no such program.
    """
    scripts = [file for file in (Path(name), app.ROOT / name) if name.endswith(".py") and file.is_file()]
    if scripts:
        return [sys.executable, str(scripts[0])]
    if path := shutil.which(name):
        return [path]
    raise UserError(f"There is no program {name}. Write supervise -- train.py --config=FILE.py --workdir=RUN, for example.")


def flag_value(flag: str, words: list[str]) -> str:
    """Return the value of --flag=VALUE or --flag VALUE, the last one if there are several, or "" if there is none."""
    found = re.findall(rf"^--?{flag}[=\n](.+)$", "\n".join(words), re.MULTILINE)
    return found[-1] if found else ""
