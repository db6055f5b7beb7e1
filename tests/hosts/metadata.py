"""A fake of Compute Engine's metadata server on this machine, as a worker of a TPU slice sees it."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def metadata_server(worker: int, endpoints: str, slices: int = 1) -> Iterator[str]:
    """Run the server, and yield its HOST:PORT for the variable GCE_METADATA_IP."""
    attributes = {"agent-worker-number": str(worker), "worker-network-endpoints": endpoints, "tpu-env": "WORKER_ID: '0'\n"}
    if slices > 1:
        attributes["tpu-env"] += f"MEGASCALE_NUM_SLICES: '{slices}'\nMEGASCALE_SLICE_ID: '1'\n"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = attributes.get(self.path.rpartition("/")[2], "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
