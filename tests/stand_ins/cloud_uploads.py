"""How clients send objects to Cloud Storage: in one body with a description, or in parts that may be sent again."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stand_ins.cloud_objects import StorageError


def described_in(body: bytes) -> dict[str, Any]:
    """Return the description of an object at the beginning of `body`, with or without lines of a multipart body before it."""
    begin = body.find(b"{")
    if begin < 0 or not (begin == 0 or body.startswith(b"--")):
        return {}
    try:
        return json.JSONDecoder().raw_decode(body[begin : begin + 100_000].decode(errors="replace"))[0]
    except json.JSONDecodeError:
        return {}


def parse_multipart(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the description and the bytes of an object in a multipart/related body, whose lines end in LF or CRLF."""
    boundary = re.search(r'boundary=(?:"([^"]+)"|([^;\s]+))', content_type)
    if not boundary:
        raise StorageError(400, "badRequest", "A multipart upload needs a boundary.")
    edge = b"--" + re.escape((boundary[1] or boundary[2]).encode())
    # The kind of line end is that of the first line: bytes of the object may look like another one.
    pattern = rb"\s*EDGE(?P<end>\r?\n).*?(?P=end){2}(?P<head>.*?)(?P=end)EDGE(?P=end).*?(?P=end){2}(?P<data>.*)(?P=end)EDGE--\s*"
    match = re.fullmatch(pattern.replace(b"EDGE", edge), body, re.DOTALL)
    if not match:
        raise StorageError(400, "badRequest", "A multipart upload has two parts.")
    return json.loads(match["head"]), match["data"]


@dataclass
class ResumableUpload:
    """An upload in parts: what its first request said, what has arrived, and the answer to its end once it was given."""

    query: Mapping[str, str]
    description: Mapping[str, Any]
    data: bytearray = field(default_factory=bytearray)
    finished: Any = None

    def take(self, content_range: str, body: bytes) -> bool:
        """Take a part, and return whether it was the last. "bytes */8" only asks how much has arrived."""
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", content_range or f"bytes 0-{len(body) - 1}/{len(body)}")
        if not match and body:
            raise StorageError(400, "badRequest", f"This is no Content-Range: {content_range}")
        first, total = (match[1], match[3]) if match else (None, "0")
        if first is not None:
            if int(first) > len(self.data):
                raise StorageError(503, "backendError", "A part before this one is missing.")
            self.data[int(first) :] = body
        return total != "*" and len(self.data) == int(total)

    @property
    def received(self) -> dict[str, str]:
        """Return the header that tells the client where to go on."""
        return {"Range": f"bytes=0-{len(self.data) - 1}"} if self.data else {}
