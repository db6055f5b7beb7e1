"""Runs a program that ends with its supervisor: `python -I leash.py SUPERVISOR PROGRAM [ARGUMENT ...]`.

SUPERVISOR is the number of the process that starts this one. Linux sends SIGKILL to this process when that one ends, for whatever
reason, and goes on to do so after this process has become the program. subprocess's `preexec_fn` could ask for the same, but what
it runs between fork and exec may wait for ever for a lock that another thread held. On other systems, a program outlives a
supervisor that is killed.

Only the standard library is imported, and this file is run by its path, so that the program starts without delay.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # From linux/prctl.h.


def main() -> None:
    """Become the program. Exit with 2, the code TO_MEND of app.py, if it cannot be run."""
    for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores some of them, and the program would go on to.
        signal.signal(number, signal.SIG_DFL)
    supervisor, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(supervisor):  # It had ended before.
            return
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"error: {command[0]} cannot be run: {error.strerror}.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
