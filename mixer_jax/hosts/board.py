"""The message board of a run: texts that its hosts write for each other. Each has a name, and is written once."""

import functools
import itertools
from typing import Any

from jax._src import distributed  # It is private: JAX has no public access to the key-value store of its coordination service.
from jax.errors import JaxRuntimeError

POLL_SECONDS = 1  # A wait is made of waits of this length, because a wait in C++ does not react to Ctrl-C.


class Board:
    """The message board as one of the hosts sees it. The texts are in the key-value store of JAX's coordination service.

    `client` is JAX's client of that service. The kind of its errors is the beginning of their text.
    """

    def __init__(self, client: Any, host: int, num_hosts: int):
        self._client, self.host, self.num_hosts = client, host, num_hosts
        self.agreements = itertools.count()  # Numbers for agreements. All hosts make them in the same order.

    def post(self, name: str, text: str) -> bool:
        """Write a text. Return False, and change nothing, if there is a text with that name already."""
        try:
            self._client.key_value_set(f"mixer_jax/{name}", text)
            return True
        except JaxRuntimeError as error:
            if str(error).startswith("ALREADY_EXISTS"):
                return False
            raise

    def read(self, name: str) -> str | None:
        """Return the text with that name, or None if there is none yet."""
        try:
            return self._client.key_value_try_get(f"mixer_jax/{name}")
        except JaxRuntimeError as error:
            if str(error).startswith("NOT_FOUND"):
                return None
            raise

    def wait(self, name: str, seconds: float) -> str | None:
        """Return the text with that name as soon as it is there, or None after `seconds`."""
        while seconds > 0:
            try:
                turn_seconds = min(seconds, POLL_SECONDS)
                return self._client.blocking_key_value_get(f"mixer_jax/{name}", round(1000 * turn_seconds))
            except JaxRuntimeError as error:
                if not str(error).startswith("DEADLINE_EXCEEDED"):
                    raise
            seconds -= turn_seconds
        return None

    def meet_at_end(self, seconds: float) -> None:
        """Wait until all hosts have called this. Raises JaxRuntimeError if one has not after `seconds`."""
        self._client.wait_at_barrier("mixer_jax/end", round(1000 * seconds))


def find_board() -> Board | None:
    """Return the board of the run that this process has joined, or None if the run has only this process."""
    state = distributed.global_state
    return _cached_board(state.client, state.process_id, state.num_processes) if state.client is not None else None


_cached_board = functools.cache(Board)
