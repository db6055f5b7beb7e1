"""The errors that programs print as one message, without a traceback, and what an OSError means."""

import errno

MAX_CHARACTERS = 20_000  # The length of a message.
LOST_DISK = (  # Errors that a single file cannot cause.
    errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
    errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ESHUTDOWN, errno.ENODEV, errno.EMFILE, errno.ENFILE,
    errno.ENOMEM,
)  # fmt: skip


class UserError(ValueError):
    """A fault that a person must mend: in flags, a config, data or a file. The same command would fail again."""


class EnvironmentFault(Exception):
    """A fault around the program: of another host, a disk, a folder in use, a device. The same command may succeed later."""


def printable(text: str, kept: str = "\n\t") -> str:
    """Return a text with ? for each control character except those in `kept`. Names in other people's files may hold any."""
    return "".join(c if c.isprintable() or c in kept else "?" for c in text)


def as_message(text: str) -> str:
    """Return a printable text of at most MAX_CHARACTERS."""
    more = len(text) - MAX_CHARACTERS
    return printable(text if more <= 0 else f"{text[:MAX_CHARACTERS]} ... and {more} characters more")


def is_mistake(error: OSError) -> bool:
    """Return whether a person must change a path or its permissions. Any other OSError is a fault of a disk or a network."""
    mistakes = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError
    return isinstance(error, mistakes) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS)


def is_lost_disk(error: OSError) -> bool:
    """Return whether no file can be read for now: a network disk is gone, or the process has no more memory or files.

    EIO is not such an error, because a disk with one bad sector returns it for one file.
    """
    return error.errno in LOST_DISK
