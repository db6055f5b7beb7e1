"""A server on this machine, in place of those on the web."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = tuple[int, dict[str, str], bytes]  # (status, headers, body)


class FileServer:
    """What a server answers by path, and the paths that it was asked for."""

    def __init__(self, url: str):
        self.url, self.replies, self.asked = url, dict[str, Reply](), list[str]()

    def put(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.replies[path] = (status, {"Content-Length": str(len(body))} | headers, body)


@contextmanager
def file_server() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.asked.append(self.path)
            status, headers, body = files.replies.get(self.path, (404, {"Content-Length": "0"}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        files = FileServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
