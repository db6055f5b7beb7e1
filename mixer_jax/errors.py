"""The errors that entry points print as one message, without a traceback. app.py has the exit code of each."""

import errno


class UserError(ValueError):
    """Something that only a person can change: flags, a config, data, a file. The same command would fail again."""


class EnvironmentFault(Exception):
    """Something around the program: another host, a disk, a folder in use, a device. The same command may succeed later."""


def is_mistake(error: OSError) -> bool:
    """Whether a person must change a path or its permissions. Any other OSError is the environment's: a disk, a network."""
    mistakes = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError
    return isinstance(error, mistakes) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
