"""The fixtures `call`, which is `python -m mixer_jax reproduce` in this process, and `with_data`."""

import sys

import pytest

from mixer_jax.__main__ import main
from mixer_jax.reproduction import working


@pytest.fixture
def call(monkeypatch, capsys):
    """Return a function of arguments that returns the exit code, the output and the errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", "reproduce", *arguments])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def with_data(monkeypatch) -> None:
    """Let all data be here."""
    monkeypatch.setattr(working, "_fault_of", lambda data: "")
