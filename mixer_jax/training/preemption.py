"""Requests to stop a run: SIGTERM from a scheduler, or Ctrl-C from a person."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils

from mixer_jax.hosts.joining import start_preemption_service


class Stopped(Exception):
    """The run was asked to stop, and all hosts stop at the same point. The text says whether that is in an evaluation."""


class StopRequest:
    """A context in which the first SIGTERM or Ctrl-C sets a flag that the run reads. The second ends the process as usual.

    With several processes, JAX's preemption service handles SIGTERM and tells the other processes, so that all hosts stop at the
    same point. The context starts this service and turns a Ctrl-C into a SIGTERM. A SIGTERM handler of our own would replace the
    service's.
    """

    def __init__(self) -> None:
        self._requested = False
        self._times_asked = 0
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
        self._restore()
        if self._distributed:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._requested = True

    def reached(self) -> bool:
        """Return whether to stop here. Every process must ask at the same points, in the same order.

        The questions are numbered. JAX's service says yes to one number, which no host has reached before. From then on, the
        answer stays yes.
        """
        self._times_asked += 1
        if self._distributed and not self._requested:
            self._requested = multihost_utils.reached_preemption_sync_point(self._times_asked)
        return self._requested

    def check_in_evaluation(self) -> None:
        """Raise Stopped when `reached` says to stop here, between two batches of an evaluation."""
        if self.reached():
            raise Stopped("in an evaluation")
