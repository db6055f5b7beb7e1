"""A server on this machine that answers what huggingface_hub asks of the Hub, with the faults that a test gives it."""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

FIRST, SECOND = "1" * 40, "2" * 40  # Commits.


class Hub(ThreadingHTTPServer):
    """The Hub: its repositories, what it was asked, and its faults.

    Attributes:
      repositories: {OWNER/NAME: {commit: {file: content}}}.
      branches: {branch or tag: commit}, in every repository.
      requests: "METHOD PATH" of each request.
      faults: {pattern for "METHOD PATH": (status, the header X-Error-Code), or "cut" to send half of the file}.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches = {"main": FIRST}
        self.requests: list[str] = []
        self.faults: dict[str, tuple[int, str] | str] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(self.path.partition("?")[0]).strip("/")
        request = f"{self.command} {path}"
        self.server.requests.append(request)
        fault = next((fault for pattern, fault in self.server.faults.items() if re.search(pattern, request)), None)
        if isinstance(fault, tuple):
            return self.refuse(*fault)
        match = re.fullmatch(r"api/models/(\w+/[^/]+?)(?:/(revision|tree)/([^/]+))?|(\w+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not match:  # The library also asks for what no test is about.
            return self.refuse(404, "")
        repository = self.server.repositories.get(match[1] or match[4])
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        revision = match[3] or match[5] or "main"
        commit = self.server.branches.get(revision, revision)
        if commit not in repository:
            return self.refuse(404, "RevisionNotFound")
        files = repository[commit]
        if match[6]:
            if match[6] not in files:
                return self.refuse(404, "EntryNotFound")
            return self.send(files[match[6]], {"X-Repo-Commit": commit}, cut=fault == "cut")
        if match[2] == "tree":
            listing: object = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
        else:
            listing = {"id": match[1], "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        return self.send(json.dumps(listing).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str) -> None:
        self.send(b"{}", {"X-Error-Code": code, "X-Error-Message": "refused by the stand-in"}, status)

    def send(self, content: bytes, headers: dict[str, str], status: int = 200, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Yield a hub that answers until the context ends."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
