"""A stand-in for the Cloud TPU API on this machine, which the real gcloud takes for the real one: nodes and queued resources.

Of the Compute Engine API it has what `gcloud ... ssh` asks: the project's keys for SSH.
"""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

PARENT = "projects/p/locations/europe-west4-a"


class TpuApi:
    """A server on 127.0.0.1 while its context is open.

    Attributes:
      nodes, queued: {name: what the API returns}. A test may change them.
      created: the bodies of all requests that created something.
      num_hosts: the number of hosts of each node that is created. Their addresses are 127.0.0.1, 127.0.0.2 and so on.
      ssh_key: the public key with which gcloud logs in.
    """

    def __init__(self, num_hosts: int = 2):
        self.nodes: dict[str, dict] = {}
        self.queued: dict[str, dict] = {}
        self.created: list[dict] = []
        self.num_hosts, self.ssh_key = num_hosts, ""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, answer = api.answer(self.command, self.path, json.loads(body or b"{}"))
                text = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_DELETE = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> "TpuApi":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables that lead gcloud here, with its files in a folder."""
        token = folder / "token"
        token.write_text("x")
        return {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_TPU": f"http://127.0.0.1:{self._server.server_address[1]}/",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": f"http://127.0.0.1:{self._server.server_address[1]}/compute/v1/",
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(token),
            "CLOUDSDK_CONFIG": str(folder / "gcloud"),
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        }

    def answer(self, method: str, path: str, body: dict) -> tuple[int, dict]:
        """Return the code and the content of the answer to a request."""
        url = urlsplit(path)
        if "/operations/" in url.path:
            return 200, {"name": url.path.partition("/v2/")[2], "done": True, "response": {}}
        if url.path.endswith("/projects/p"):
            keys = {"fingerprint": "eA==", "items": [{"key": "ssh-keys", "value": self.ssh_key}]}
            return 200, {"name": "p", "commonInstanceMetadata": keys}
        match = re.search(r"/(nodes|queuedResources)(?:/([^/]+))?$", url.path)
        if not match:
            return 404, {"error": {"code": 404, "message": path, "status": "NOT_FOUND"}}
        kind, name = match.groups()
        if name and name.endswith(":getGuestAttributes"):  # A host may say its SSH keys there.
            return 200, {"guestAttributes": []}
        all_of_kind = self.nodes if kind == "nodes" else self.queued
        if method == "POST":
            query = parse_qs(url.query)
            create: Callable[[str, dict], None] = self._create_node if kind == "nodes" else self._create_queued
            create((query.get("nodeId") or query["queuedResourceId"])[0], body)
            return 200, {"name": f"{PARENT}/operations/o", "done": True, "response": {}}
        if name is None:
            return 200, {kind: list(all_of_kind.values())}
        if name not in all_of_kind:
            return 404, {"error": {"code": 404, "message": f"{name} not found", "status": "NOT_FOUND"}}
        if method == "DELETE":
            del all_of_kind[name]
            for node in [node for node in self.nodes if kind == "queuedResources" and node.startswith(name)]:
                del self.nodes[node]
            return 200, {"name": f"{PARENT}/operations/o", "done": True, "response": {}}
        return 200, all_of_kind[name]

    def _create_node(self, name: str, body: dict) -> None:
        self.created.append(body)
        addresses = [f"127.0.0.{host + 1}" for host in range(self.num_hosts)]
        ends = [{"ipAddress": address, "port": 8470, "accessConfig": {"externalIp": address}} for address in addresses]
        self.nodes[name] = body | {
            "name": f"{PARENT}/nodes/{name}",
            "state": "READY",
            "health": "HEALTHY",
            "networkEndpoints": ends,
        }

    def _create_queued(self, name: str, body: dict) -> None:
        self.created.append(body)
        self.queued[name] = body | {"name": f"{PARENT}/queuedResources/{name}", "state": {"state": "ACTIVE"}}
        spec = body["tpu"]["nodeSpec"][0]
        count = spec.get("multiNodeParams", spec.get("multisliceParams", {})).get("nodeCount")
        for node in [f"{name}-{number}" for number in range(count)] if count else [spec["nodeId"]]:
            self._create_node(node, spec["node"])
