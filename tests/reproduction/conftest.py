"""The fixture `call`: `python -m mixer_jax reproduce` in this process."""

import sys

import pytest

from mixer_jax.__main__ import main


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function of arguments that returns the exit code, the output and the errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", "reproduce", *arguments])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
