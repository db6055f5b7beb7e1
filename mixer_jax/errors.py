"""The error for what the person who started the program can fix."""


class UserError(ValueError):
    """Something that the person who started the program can fix. Entry points print it as one message, without a traceback."""
