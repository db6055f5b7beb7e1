"""A fake of JAX's coordination service for threads in one process. It raises JAX's own errors."""

import threading

from jax.errors import JaxRuntimeError

from mixer_jax.hosts.board import Board


class FakeService:
    """The store of what all hosts have written. It has the methods of JAX's client that hosts/board.py calls."""

    def __init__(self):
        self.texts: dict[str, str] = {}
        self._at_end = threading.Barrier(2)
        self._changed = threading.Condition()

    def key_value_set(self, key: str, text: str) -> None:
        with self._changed:
            if key in self.texts:
                raise JaxRuntimeError(f"ALREADY_EXISTS: key {key} already exists.")
            self.texts[key] = text
            self._changed.notify_all()

    def key_value_try_get(self, key: str) -> str:
        with self._changed:
            if key not in self.texts:
                raise JaxRuntimeError(f"NOT_FOUND: Config key {key} not found.")
            return self.texts[key]

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        with self._changed:
            if not self._changed.wait_for(lambda: key in self.texts, milliseconds / 1000):
                raise JaxRuntimeError(f"DEADLINE_EXCEEDED: GetKeyValue() timed out with key: {key}")
            return self.texts[key]

    def wait_at_barrier(self, name: str, milliseconds: int) -> None:
        self._at_end.wait(milliseconds / 1000)

    def board(self, host: int, num_hosts: int) -> Board:
        return Board(self, host, num_hosts)


def on_all_hosts(num_hosts: int, function) -> list:
    """Call function(board) in one thread for each host. Return what each call returned or raised."""
    service, ended = FakeService(), [None] * num_hosts

    def call(host: int) -> None:
        try:
            ended[host] = function(service.board(host, num_hosts))
        except Exception as error:
            ended[host] = error

    threads = [threading.Thread(target=call, args=(host,)) for host in range(num_hosts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended
