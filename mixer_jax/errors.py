"""The errors that entry points print as one message, without a traceback. app.py has the exit code of each."""

import errno

MAX_CHARACTERS = 20_000  # of a message


class UserError(ValueError):
    """Something that only a person can change: flags, a config, data, a file. The same command would fail again."""


class EnvironmentFault(Exception):
    """Something around the program: another host, a disk, a folder in use, a device. The same command may succeed later."""


def printable(text: str) -> str:
    """Return a text for a terminal, where names from somebody else's files must not move the cursor, nor fill the screen."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]} ... and {len(text) - MAX_CHARACTERS} characters more"
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def is_mistake(error: OSError) -> bool:
    """Whether a person must change a path or its permissions. Any other OSError is the environment's: a disk, a network."""
    mistakes = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError
    return isinstance(error, mistakes) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)
