"""Being asked to stop: SIGTERM from a scheduler, Ctrl-C from a person."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

from mixer_jax.hosts.joining import start_preemption_service


class StopRequest:
    """While entered, the first SIGTERM or Ctrl-C sets a flag that the loop reads; the second kills as usual.

    With several processes JAX's own service takes SIGTERM and spreads it, so that all hosts agree on the step at which to stop.
    It starts here, and Ctrl-C is handed to it. A handler of ours would silence it.
    """

    def __init__(self) -> None:
        self._requested = False
        self._distributed = jax.distributed.is_initialized()

    def __enter__(self) -> "StopRequest":
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        if self._distributed:
            start_preemption_service()
        signals = [signal.SIGINT] if self._distributed else [signal.SIGINT, signal.SIGTERM]
        self._previous = {number: signal.signal(number, self._on_signal) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        if self._distributed:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self._restore()
        if self._distributed:
            os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Whether to stop after this step. Every process must ask at every step."""
        return multihost_utils.reached_preemption_sync_point(step) if self._distributed else self._requested
