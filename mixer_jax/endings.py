"""The exit codes of every program, and the end that an exception brings.

0    The program is done, or was done before.
1    The environment failed (another host, a disk, a folder in use, a device), or the program did. A supervisor may try again.
2    A person must change something: flags, config, data, a checkpoint that does not fit. Trying again is of no use.
75   The run was stopped by SIGTERM or Ctrl-C, and saved. The same command goes on.
76   The watchdog found that nothing went on (supervision/watchdog.py). A supervisor may try again.
130  Ctrl-C when there was nothing to save, or a second Ctrl-C, which does not wait until all is saved.
143  SIGTERM when there was nothing to save, on one host of several. A process alone is ended by the signal itself.
"""

import errno
import os
import traceback
from typing import NamedTuple

from mixer_jax.errors import EnvironmentFault, UserError, is_mistake

DONE, TRY_AGAIN, TO_MEND, STOPPED, STALLED, INTERRUPTED = 0, 1, 2, 75, 76, 130
NO_HOME = "~ stands for a home folder, and none is known: set HOME, or write whole paths."
_PATHLIB_NO_HOME = "Could not determine home directory."  # The text of pathlib's RuntimeError.


class Ending(NamedTuple):
    """The end of a program that an exception has stopped."""

    code: int
    message: str
    expected: bool = True  # False for a fault of the program itself, whose traceback is printed.


def ending(error: BaseException) -> Ending:
    """Return the exit code, by the table at the top of this file, and the message for an exception."""
    if isinstance(error, UserError):
        return Ending(TO_MEND, f"error: {error}")
    if isinstance(error, EnvironmentFault):
        return Ending(TRY_AGAIN, f"error: {error}")
    if isinstance(error, OSError):
        reason = f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error)
        if is_mistake(error):
            return Ending(TO_MEND, f"error: {reason}")
        hint = "Make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "See to it"
        return Ending(TRY_AGAIN, f"error: {reason}. {hint} and start the same command again; what was saved is kept.")
    if isinstance(error, KeyboardInterrupt):
        return Ending(INTERRUPTED, "Interrupted, without saving. What was saved before is kept.")
    if isinstance(error, RuntimeError) and str(error) == _PATHLIB_NO_HOME:
        return Ending(TO_MEND, f"error: {NO_HOME}")
    if _is_device_fault(error):
        asked = os.environ.get("JAX_PLATFORMS")
        unknown = "list of known backends" in str(error) or isinstance(error, AssertionError)
        return Ending(
            TO_MEND if unknown else TRY_AGAIN,
            f"error: JAX finds no device{f' for JAX_PLATFORMS={asked}' if asked else ''} ({str(error) or 'no plugin for it'}). "
            "Is the device there, used by no other process, and is its library installed (the extra tpu or gpu)? "
            "JAX_PLATFORMS=cpu computes without one.",
        )
    return Ending(TRY_AGAIN, f"{type(error).__name__}: {error}", expected=False)


def _is_device_fault(error: BaseException) -> bool:
    """Return whether JAX raised this while it looked for devices. It has no exception type for that.

    For a missing plugin it raises an AssertionError without a text, which is recognized by where it was raised.
    """
    if "Unable to initialize backend" in str(error):
        return True
    return isinstance(error, AssertionError) and "jax/_src/xla_bridge.py" in "".join(traceback.format_exception(error))
