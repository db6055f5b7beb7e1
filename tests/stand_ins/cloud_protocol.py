"""Cloud Storage's JSON API on the stand-in's objects: a request in, a response out. It knows nothing of sockets."""

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote, unquote

from stand_ins.cloud_objects import PAGE_SIZE, Objects, Preconditions, StorageError, StoredObject
from stand_ins.cloud_uploads import ResumableUpload, described_in, parse_multipart


@dataclass(frozen=True)
class Request:
    """An HTTP request. `path` is as sent: a slash in an object's name stands as %2F. Names of headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    @cached_property
    def bucket(self) -> str:
        """The bucket that the request is about, or ""."""
        found = re.search(r"/storage/v1/b/([^/]+)", self.path)
        return unquote(found[1]) if found else ""

    @cached_property
    def action(self) -> str:
        """What is done: "read" (also a description), "write", "delete", "copy", "list" or "look" at the bucket itself."""
        if self.method in ("GET", "HEAD"):
            return "read" if self.name else "list" if self.path.endswith("/o") else "look"
        if self.method == "DELETE":
            return "delete"
        return "copy" if re.search("/o/[^/]+/(?:copyTo|rewriteTo|moveTo)/", self.path) else "write"

    @cached_property
    def name(self) -> str:
        """The object that the request is about, or "", as for a list."""
        found = re.search(r"/storage/v1/b/[^/]+/o/([^/]+)", self.path)
        if found:
            return unquote(found[1])
        return self.query.get("name") or described_in(self.body).get("name", "")


@dataclass(frozen=True)
class Response:
    """An HTTP response. Of the body, `sent` bytes are sent before the connection is cut; None is all, without a cut."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None


def in_json(content: object, status: int = 200, **headers: str) -> Response:
    return Response(status, json.dumps(content).encode(), {"Content-Type": "application/json; charset=UTF-8", **headers})


def refusal(status: int, reason: str, message: str) -> Response:
    """Return an error in the form of Cloud Storage."""
    if status == 304:
        return Response(304)
    errors = [{"domain": "global", "reason": reason, "message": message}]
    return in_json({"error": {"code": status, "message": message, "errors": errors}}, status)


class Service:
    """Answers requests from `objects`."""

    def __init__(self, objects: Objects):
        self.objects = objects
        self._uploads: dict[str, ResumableUpload] = {}
        self._upload_ids = itertools.count(1)
        bucket, item = r"/storage/v1/b/([^/]+)", r"/storage/v1/b/([^/]+)/o/([^/]+)"
        self._routes: list[tuple[str, str, Callable[..., Response]]] = [
            ("GET", rf"{bucket}(?:/storageLayout)?", self.describe_bucket),
            ("POST", rf"/(?:resumable/)?upload{bucket}/o", self.upload),
            ("PUT", rf"/(?:resumable/)?upload{bucket}/o", self.continue_upload),
            ("GET", rf"{bucket}/o", self.list_objects),
            ("POST", rf"{item}/(copyTo|rewriteTo)/b/([^/]+)/o/([^/]+)", self.copy),
            ("POST", rf"{item}/moveTo/o/([^/]+)", self.move),
            ("GET", rf"(?:/download)?{item}", self.read),
            ("PATCH", item, self.annotate),
            ("DELETE", item, self.delete),
        ]

    def answer(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            for accepted, pattern, handler in self._routes:
                if method == accepted and (match := re.fullmatch(pattern, request.path)):
                    return handler(request, *map(unquote, match.groups()))
            raise StorageError(404, "notFound", f"The stand-in does not know {request.method} {request.path}.")
        except StorageError as error:
            return refusal(error.status, error.reason, str(error))

    def describe_bucket(self, request: Request, bucket: str) -> Response:
        self.objects.require_bucket(bucket)
        kind = {"kind": "storage#bucket", "id": bucket, "name": bucket, "location": "US", "locationType": "region"}
        return in_json(kind | {"storageClass": "STANDARD", "hierarchicalNamespace": {"enabled": False}})

    def upload(self, request: Request, bucket: str) -> Response:
        """Store an object that is sent whole, or begin an upload in parts."""
        way = request.query.get("uploadType")
        if "upload_id" in request.query:
            return self.continue_upload(request, bucket)
        if way == "media":
            name, content_type = request.query["name"], request.headers.get("content-type", "application/octet-stream")
            stored = self.objects.put(bucket, name, request.body, Preconditions.from_query(request.query), content_type)
            return in_json(stored.resource)
        if way == "multipart":
            description, data = parse_multipart(request.headers["content-type"], request.body)
            return self.store(bucket, request.query, description, data)
        self.objects.require_bucket(bucket)
        upload_id = str(next(self._upload_ids))
        self._uploads[upload_id] = ResumableUpload(dict(request.query), described_in(request.body))
        query = f"uploadType=resumable&name={quote(request.name, safe='')}&upload_id={upload_id}"
        return in_json({}, Location=f"http://{request.headers['host']}{request.path}?{query}")

    def continue_upload(self, request: Request, bucket: str) -> Response:
        """Take a part of an upload, and store the object with the last one. A part may be sent twice."""
        upload = self._uploads.get(request.query.get("upload_id", ""))
        if not upload:
            raise StorageError(404, "notFound", "There is no such upload.")
        if upload.finished is None and upload.take(request.headers.get("content-range", ""), request.body):
            upload.finished = self.store(bucket, upload.query, upload.description, bytes(upload.data))
        return upload.finished or Response(308, headers=upload.received)

    def store(self, bucket: str, query: Mapping[str, str], description: Mapping[str, Any], data: bytes) -> Response:
        """Store an object that a client has described in JSON."""
        name = description.get("name") or query["name"]
        content_type = description.get("contentType", "application/octet-stream")
        conditions = Preconditions.from_query(query)
        return in_json(self.objects.put(bucket, name, data, conditions, content_type, description.get("metadata")).resource)

    def list_objects(self, request: Request, bucket: str) -> Response:
        query = request.query
        page = self.objects.page(
            bucket,
            query.get("prefix", ""),
            query.get("delimiter", ""),
            query.get("startOffset", ""),
            query.get("endOffset") or None,
            # TensorStore sends a token back without encoding it, so a token has nothing that must be encoded.
            bytes.fromhex(query.get("pageToken", "")).decode(),
            int(query.get("maxResults") or PAGE_SIZE),
        )
        content = {"kind": "storage#objects", "items": [item.resource for item in page.objects], "prefixes": page.prefixes}
        return in_json(content | ({"nextPageToken": page.next_token.encode().hex()} if page.next_token else {}))

    def copy(self, request: Request, bucket: str, name: str, verb: str, to_bucket: str, to_name: str) -> Response:
        source = self.objects.find(bucket, name)
        conditions = Preconditions.from_query(request.query)
        copied = self.objects.put(to_bucket, to_name, source.data, conditions, source.content_type, source.metadata)
        if verb == "copyTo":
            return in_json(copied.resource)
        size = str(len(copied.data))
        rewritten = {"kind": "storage#rewriteResponse", "done": True, "objectSize": size, "totalBytesRewritten": size}
        return in_json(rewritten | {"resource": copied.resource})

    def move(self, request: Request, bucket: str, name: str, to_name: str) -> Response:
        return in_json(self.objects.move(bucket, name, to_name, Preconditions.from_query(request.query)).resource)

    def read(self, request: Request, bucket: str, name: str) -> Response:
        """Return an object's description, its bytes, or a range of them."""
        stored = self.objects.find(bucket, name, Preconditions.from_query(request.query, reading=True))
        if "generation" in request.query and request.query["generation"] != str(stored.generation):
            raise StorageError(404, "notFound", f"No such generation: {bucket}/{name}#{request.query['generation']}")
        if request.query.get("alt") != "media":
            return in_json(stored.resource)
        return select_range(stored, request.headers.get("range", ""))

    def annotate(self, request: Request, bucket: str, name: str) -> Response:
        conditions = Preconditions.from_query(request.query)
        return in_json(self.objects.annotate(bucket, name, json.loads(request.body).get("metadata", {}), conditions).resource)

    def delete(self, request: Request, bucket: str, name: str) -> Response:
        self.objects.remove(bucket, name, Preconditions.from_query(request.query))
        return Response(204)


def select_range(stored: StoredObject, wanted: str) -> Response:
    """Return the bytes that a Range header asks for: "bytes=2-5", "bytes=2-" or "bytes=-4"; without one, all."""
    size = len(stored.data)
    headers = {
        "Content-Type": stored.content_type,
        "ETag": f'"{stored.generation}"',
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-stored-content-length": str(size),
        "x-goog-hash": ",".join(f"{name}={checksum}" for name, checksum in stored.checksums.items()),
    }
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if not match:
        return Response(200, stored.data, headers)
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size:
        raise StorageError(416, "requestedRangeNotSatisfiable", "The requested range cannot be satisfied.")
    return Response(206, stored.data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})
