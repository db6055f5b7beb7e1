"""A stand-in for Google Cloud Storage on this machine, with faults on demand.

TensorStore, gcsfs, google-cloud-storage, Orbax and array_record take it for the real one (`CloudStorage.environment`).
"""

import contextlib
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from stand_ins.cloud_faults import Fault, HangUp
from stand_ins.cloud_objects import Objects
from stand_ins.cloud_protocol import Request, Response, Service

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST, so that the client's bytes are not acknowledged.


class CloudStorage:
    """A server on 127.0.0.1 while its context is open. What is asked of it stands in `requests`, what it keeps in `objects`."""

    def __init__(self, *buckets: str):
        self._buckets = buckets or ("bucket",)
        self._server = Server(self.serve)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.faults: list[Fault] = []
        self.reset()

    def __enter__(self) -> "CloudStorage":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()

    def reset(self) -> None:
        """Forget faults, objects and requests."""
        self.heal()
        self.objects = Objects(*self._buckets)
        self.requests: list[Request] = []
        self._service = Service(self.objects)

    def fail(self, fault: Fault) -> Fault:
        """Put a fault in force."""
        fault.lifted.clear()
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """Lift all faults. Requests that a fault delays go on."""
        for fault in self.faults:
            fault.lifted.set()
        self.faults = []

    @contextlib.contextmanager
    def failing(self, fault: Fault) -> Iterator[Fault]:
        """Keep a fault in force within the context."""
        self.fail(fault)
        try:
            yield fault
        finally:
            self.faults = [other for other in self.faults if other is not fault]
            fault.lifted.set()

    def serve(self, request: Request) -> Response:
        """Answer a request, through the faults that happen to it. The one that was put in force first meets it first."""
        self.requests.append(request)
        answer = self._service.answer
        for fault in reversed(self.faults):
            if fault.happens_to(request):
                answer = partial(fault.answer, serve=answer)
        return answer(request)

    def environment(self) -> dict[str, str]:
        """Return the variables that send the clients here."""
        return {
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",  # TensorStore otherwise searches for credentials.
            "STORAGE_EMULATOR_HOST": self.url,  # gcsfs and google-cloud-storage
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # gcsfs otherwise searches for credentials, and warns.
            "GOOGLE_CLOUD_PROJECT": "project",  # google-cloud-storage otherwise searches for one.
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,  # array_record
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }


class Server(ThreadingHTTPServer):
    """The sockets. `serve` answers the requests, each connection's in a thread of its own."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # Clients open many connections at once.

    def __init__(self, serve: Callable[[Request], Response]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.serve = serve
        self.connections: set[socket.socket] = set()

    def close_connections(self) -> None:
        """Close the connections that clients keep for later requests."""
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write the traceback of a mistake of the stand-in. That a client hung up is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection: from bytes to requests, and from responses to bytes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # With a buffered wfile, this makes saving a checkpoint fifteen times as fast.
    wbufsize = -1
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def respond(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, url.path, query, headers, self.read_body())
        try:
            self.send(self.server.serve(request))
        except HangUp:
            self.hang_up()

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = respond

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.status not in (204, 304):
            self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body[: response.sent])
        self.wfile.flush()
        self.close_connection |= response.sent is not None

    def hang_up(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close_connection = True

    def handle_expect_100(self) -> bool:
        """Tell a client at once that it may send a large body, which it otherwise holds back for a second."""
        accepted = super().handle_expect_100()
        self.wfile.flush()
        return accepted

    def log_message(self, *_: object) -> None:
        """Write nothing to the terminal."""
