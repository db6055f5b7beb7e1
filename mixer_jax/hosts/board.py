"""What the hosts of a run write for each other: texts by name, each written once, at the coordinator."""

import functools
import itertools
from typing import Any

from jax._src import distributed  # private: JAX has no public way to its coordination service's store of keys and values
from jax.errors import JaxRuntimeError

POLL_SECONDS = 1  # a wait in C++ hears no Ctrl-C, so a longer one is made of these


class Board:
    """The store, and which host this is.

    `client` is JAX's client of its coordination service. Its errors say what they are by how their text begins.
    """

    def __init__(self, client: Any, host: int, num_hosts: int):
        self._client, self.host, self.num_hosts = client, host, num_hosts
        self.agreements = itertools.count()  # their numbers, alike on all hosts, which have them in the same order

    def post(self, name: str, text: str) -> bool:
        """Write a text. Return False, and change nothing, where there is one of that name."""
        try:
            self._client.key_value_set(f"mixer_jax/{name}", text)
            return True
        except JaxRuntimeError as error:
            if str(error).startswith("ALREADY_EXISTS"):
                return False
            raise

    def read(self, name: str) -> str | None:
        """Return a text, or None as long as there is none."""
        try:
            return self._client.key_value_try_get(f"mixer_jax/{name}")
        except JaxRuntimeError as error:
            if str(error).startswith("NOT_FOUND"):
                return None
            raise

    def wait(self, name: str, seconds: float) -> str | None:
        """Return a text as soon as it is there, or None after so many seconds."""
        while seconds > 0:
            try:
                turn = min(seconds, POLL_SECONDS)
                return self._client.blocking_key_value_get(f"mixer_jax/{name}", round(1000 * turn))
            except JaxRuntimeError as error:
                if not str(error).startswith("DEADLINE_EXCEEDED"):
                    raise
            seconds -= turn
        return None

    def meet_at_end(self, seconds: float) -> None:
        """Wait until all hosts have called this. Raises JaxRuntimeError when one does not."""
        self._client.wait_at_barrier("mixer_jax/end", round(1000 * seconds))


def find_board() -> Board | None:
    """Return the board of the hosts that this process was joined to, or None when it is alone."""
    state = distributed.global_state
    return _board_of(state.client, state.process_id, state.num_processes) if state.client is not None else None


_board_of = functools.cache(Board)
