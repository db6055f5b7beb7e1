"""Carries out the steps of a launch, one after the other, and prints each before it begins."""

import shlex
import subprocess
from collections.abc import Sequence

from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch.commands import Run, Step, format_steps
from mixer_jax.storage import open_storage


def carry_out(steps: Sequence[Step]) -> None:
    """Carry out steps. Raises UserError for a program that is not installed, and EnvironmentFault for one that fails."""
    for step in steps:
        print(format_steps([step]), flush=True)
        if isinstance(step, Run):
            code = run(step.words)
            if code:
                raise EnvironmentFault(f"{shlex.join(step.words)} ended with {code}. The same command goes on from here.")
        else:
            folder, _, name = step.path.rpartition("/")
            open_storage(folder).write(name, step.content)


def run(words: Sequence[str]) -> int:
    """Run a program with this terminal, and return its exit code. Raises UserError if it is not installed."""
    try:
        return subprocess.run(words, check=False).returncode
    except FileNotFoundError:
        raise UserError(f"There is no program {words[0]} here: install it, or type the command where it is.") from None
