"""A TCP proxy on this machine that can be cut."""

import contextlib
import socket
import threading
import time

CONNECT_SECONDS = 60
CHUNK_BYTES = 65536


class Proxy:
    """Passes the bytes of all connections to `port` of this machine and back, until `cut`. Clients connect to `self.port`."""

    def __init__(self, port: int):
        self._target, self._is_cut, self._sockets = port, threading.Event(), []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, silently: bool) -> None:
        """Let no byte through from now on. Unless `silently`, also close all connections and refuse new ones."""
        self._is_cut.set()
        if not silently:
            self.close()

    def close(self) -> None:
        """Close all connections, and refuse new ones."""
        self._is_cut.set()
        for end in (self._server, *self._sockets):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._server.accept()[0]
            except OSError:  # `close` has closed the server.
                return
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Connect a client to the target, which may come later, and pass on what both say."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while not self._is_cut.is_set() and time.monotonic() < deadline:
            try:
                target = socket.create_connection(("localhost", self._target))
            except OSError:
                time.sleep(0.1)
                continue
            self._sockets.append(target)
            threading.Thread(target=self._pass_on, args=(target, client), daemon=True).start()
            self._pass_on(client, target)
            return

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        """Pass bytes on until the source has ended. After a cut, they are taken and lost."""
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if not self._is_cut.is_set():
                    target.sendall(data)
        if not self._is_cut.is_set():
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_WR)
