"""A profiler's trace of some steps of a run, for TensorBoard and xprof: `--config.profile=100:110`."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from mixer_jax.errors import UserError


def steps_to_profile(text: str, total: int) -> range:
    """Return the steps FIRST to LAST of "FIRST:LAST", or none for "".

    Raises UserError for anything else, and for steps beyond `total`.
    """
    if not text:
        return range(0)
    match = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= last <= total:
        raise UserError(f"config.profile is {text!r}: it must be FIRST:LAST, two steps from 1 to {total}, the run's last.")
    return range(first, last + 1)


class Profiler:
    """Writes one trace of consecutive steps into a folder."""

    def __init__(self, steps: range, folder: Path):
        self._steps, self._folder = steps, folder
        self._is_running = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Trace what this context does as step `number`, if that is one of the steps to trace."""
        if self._steps and number == self._steps[0]:
            jax.profiler.start_trace(self._folder)
            self._is_running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number) if self._is_running else contextlib.nullcontext():
            yield

    def finish(self, number: int, values: Any) -> None:
        """Write the trace when the last of the steps has been computed. `values` are what step `number` returned."""
        if self._is_running and number == self._steps[-1]:
            jax.block_until_ready(values)
            self.close()
            print(f"The profile of steps {self._steps[0]} to {self._steps[-1]} is in {self._folder}.")

    def close(self) -> None:
        """Write the trace of a run that ends before the last of the steps."""
        if self._is_running:
            jax.profiler.stop_trace()
            self._is_running = False
