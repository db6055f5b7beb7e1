"""The errors that entry points print as one message, without a traceback. app.py has the exit code of each."""

import errno

MAX_CHARACTERS = 20_000  # of a message
LOST_DISK = (  # errors that one file alone cannot cause
    errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
    errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ESHUTDOWN, errno.ENODEV, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM,
)  # fmt: skip


class UserError(ValueError):
    """Something that only a person can change: flags, a config, data, a file. The same command would fail again."""


class EnvironmentFault(Exception):
    """Something around the program: another host, a disk, a folder in use, a device. The same command may succeed later."""


def printable(text: str, kept: str = "\n\t") -> str:
    """Return a text with ? for each control character but those of `kept`: names in other people's files may hold any."""
    return "".join(c if c.isprintable() or c in kept else "?" for c in text)


def as_message(text: str) -> str:
    """Return a printable text that does not fill the screen."""
    more = len(text) - MAX_CHARACTERS
    return printable(text if more <= 0 else f"{text[:MAX_CHARACTERS]} ... and {more} characters more")


def is_mistake(error: OSError) -> bool:
    """Whether a person must change a path or its permissions. Any other OSError is the environment's: a disk, a network."""
    mistakes = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError
    return isinstance(error, mistakes) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS)


def is_lost_disk(error: OSError) -> bool:
    """Whether no file can be read for now: a network disk is gone, or this process is out of memory or files.

    EIO is not among them: a disk with one bad sector answers with it for one file.
    """
    return error.errno in LOST_DISK
