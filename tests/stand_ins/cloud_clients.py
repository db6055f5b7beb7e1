"""Clients of the stand-in for its own tests: TensorStore with short retries, and plain HTTP."""

import http.client
import json
from collections.abc import Mapping
from urllib.parse import quote

import tensorstore
from stand_ins.cloud_storage import CloudStorage

DEADLINE = 60  # seconds: an answer comes within milliseconds, and no test may hang
# So many attempts that no test fails by chance: where 40 % are refused, a request fails with the probability 0.4^21 = 4e-9.
QUICK_RETRIES = {"max_retries": 20, "initial_delay": "1ms", "max_delay": "5ms"}
NEVER_WRITTEN = b"\x02"  # TensorStore's generation of an object that does not exist
LOST = b""  # TensorStore's generation where another one was expected


def open_bucket(bucket: str = "bucket", path: str = "run/", **retries: object) -> tensorstore.KvStore:
    context = {"gcs_request_retries": QUICK_RETRIES | retries}
    return tensorstore.KvStore.open({"driver": "gcs", "bucket": bucket, "path": path, "context": context}).result(DEADLINE)


def send(
    cloud: CloudStorage, method: str, target: str, body: bytes | str = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request to a path, or to the URL that the stand-in gave. Return status, headers and body of the answer."""
    connection = http.client.HTTPConnection(cloud.url.removeprefix("http://"), timeout=DEADLINE)
    try:
        connection.request(method, target.removeprefix(cloud.url), body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def item(name: str, query: str = "", bucket: str = "bucket") -> str:
    return f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}{query}"


def upload_media(cloud: CloudStorage, name: str, data: bytes, query: str = "") -> tuple:
    return send(cloud, "POST", f"/upload/storage/v1/b/bucket/o?uploadType=media&name={quote(name, safe='')}{query}", data)


def upload_multipart(cloud: CloudStorage, name: str, data: bytes, query: str = "", line_end: str = "\r\n") -> tuple:
    lines = ["--edge", "Content-Type: application/json", "", json.dumps({"name": name}), "--edge", "Content-Type: text/plain"]
    body = line_end.join([*lines, "", ""]).encode() + data + f"{line_end}--edge--".encode()
    headers = {"Content-Type": 'multipart/related; boundary="edge"'}
    return send(cloud, "POST", f"/upload/storage/v1/b/bucket/o?uploadType=multipart{query}", body, headers)


def upload_multipart_with_bare_line_feeds(cloud: CloudStorage, name: str, data: bytes, query: str = "") -> tuple:
    return upload_multipart(cloud, name, data, query, "\n")


def begin_resumable(cloud: CloudStorage, name: str, query: str = "") -> str:
    """Begin an upload in parts, and return its URL."""
    target = f"/resumable/upload/storage/v1/b/bucket/o?uploadType=resumable{query}"
    return send(cloud, "POST", target, json.dumps({"name": name}))[1]["Location"]


def upload_resumable(cloud: CloudStorage, name: str, data: bytes, query: str = "") -> tuple:
    return send(cloud, "PUT", begin_resumable(cloud, name, query), data)


def upload_in_chunks(cloud: CloudStorage, name: str, data: bytes, query: str = "") -> tuple:
    """Upload in parts, each of which is sent twice, as after a lost answer."""
    url = begin_resumable(cloud, name, query)
    answer = send(cloud, "PUT", url, headers={"Content-Range": f"bytes */{len(data)}"})
    for start in range(0, len(data), 4):
        stop = min(start + 4, len(data))
        total = str(len(data)) if stop == len(data) else "*"
        for _ in range(2):
            answer = send(cloud, "PUT", url, data[start:stop], {"Content-Range": f"bytes {start}-{stop - 1}/{total}"})
    return answer


UPLOADS = (upload_media, upload_multipart, upload_multipart_with_bare_line_feeds, upload_resumable, upload_in_chunks)
