"""The buckets and objects of the stand-in of Cloud Storage: generations, preconditions, and lists in pages."""

import base64
import hashlib
import itertools
import threading
import time
from collections.abc import ItemsView, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace

try:
    import google_crc32c  # It comes with google-cloud-storage, the only client that asks for this checksum.
except ImportError:
    google_crc32c = None

Key = tuple[str, str]  # the names of a bucket and of an object in it
PAGE_SIZE = 1000  # Cloud Storage never lists more at once.


class StorageError(Exception):
    """A request that is refused with an HTTP status and Cloud Storage's word for the reason."""

    def __init__(self, status: int, reason: str, message: str):
        super().__init__(message)
        self.status, self.reason = status, reason


def compute_checksums(data: bytes) -> dict[str, str]:
    """Return the checksums in base64, by their names in the header x-goog-hash."""
    digests = {"md5": hashlib.md5(data, usedforsecurity=False).digest()}
    if google_crc32c:
        digests["crc32c"] = google_crc32c.value(data).to_bytes(4, "big")
    return {name: base64.b64encode(digest).decode() for name, digest in digests.items()}


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object. Its checksums are those of the bytes that were sent, also when they are damaged later."""

    bucket: str
    name: str
    data: bytes
    checksums: Mapping[str, str]
    generation: int
    metageneration: int = 1
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    created: float = field(default_factory=time.time)

    @property
    def resource(self) -> dict[str, object]:
        """Return what the JSON API tells about the object."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.created)) + f".{int(self.created % 1 * 1000):03}Z"
        names = {"md5": "md5Hash", "crc32c": "crc32c"}
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "bucket": self.bucket,
            "name": self.name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "contentType": self.content_type,
            "metadata": dict(self.metadata),
            "storageClass": "STANDARD",
            "timeCreated": when,
            "updated": when,
            "etag": f"{self.generation}/{self.metageneration}",
            **{names[name]: checksum for name, checksum in self.checksums.items()},
        }


@dataclass(frozen=True)
class Preconditions:
    """What a request demands of the present generations of its object. An absent object has generation 0."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    reading: bool = False  # An unchanged object is then "not modified" (304) instead of a failed precondition (412).

    @classmethod
    def from_query(cls, query: Mapping[str, str], reading: bool = False) -> "Preconditions":
        def number(name: str) -> int | None:
            return int(query[name]) if name in query else None

        return cls(number("ifGenerationMatch"), number("ifGenerationNotMatch"), number("ifMetagenerationMatch"), reading)

    def check(self, current: StoredObject | None) -> None:
        """Raise StorageError unless `current` is as demanded."""
        generation = current.generation if current else 0
        metageneration = current.metageneration if current else None
        if self.generation not in (None, generation) or self.metageneration not in (None, metageneration):
            raise StorageError(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
        if self.not_generation == generation:
            raise StorageError(304 if self.reading else 412, "conditionNotMet", "The object has this generation.")


ANY = Preconditions()


@dataclass(frozen=True)
class Page:
    """A part of a list: objects, prefixes that end at the delimiter, and the token of the next part, if there is one."""

    objects: list[StoredObject]
    prefixes: list[str]
    next_token: str | None


class Objects(MutableMapping[Key, bytes]):
    """All objects. Tests use them as a dict from (bucket, name) to bytes; the service uses the methods below."""

    def __init__(self, *buckets: str):
        self.buckets = set(buckets)
        self._objects: dict[Key, StoredObject] = {}
        self._generations = itertools.count(1001)
        self._lock = threading.RLock()

    def __getitem__(self, key: Key) -> bytes:
        return self._objects[key].data

    def __setitem__(self, key: Key, data: bytes) -> None:
        self.put(*key, data)

    def __delitem__(self, key: Key) -> None:
        del self._objects[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(sorted(self._objects))

    def __len__(self) -> int:
        return len(self._objects)

    def items(self) -> ItemsView[Key, bytes]:
        """Return all keys and contents at this moment. Requests may change them meanwhile."""
        with self._lock:
            return {key: self[key] for key in self}.items()

    def flip_bit(self, bucket: str, name: str, offset: int) -> None:
        """Damage the byte at `offset` as a disk does: neither its generation nor its checksum tells."""
        with self._lock:
            stored = self._objects[bucket, name]
            data = bytearray(stored.data)
            data[offset] ^= 1
            self._objects[bucket, name] = replace(stored, data=bytes(data))

    def names(self, prefix: str = "", bucket: str = "bucket") -> list[str]:
        """Return the sorted names of a bucket's objects that begin with `prefix`."""
        return [name for owner, name in self if owner == bucket and name.startswith(prefix)]

    def require_bucket(self, bucket: str) -> None:
        if bucket not in self.buckets:
            raise StorageError(404, "notFound", "The specified bucket does not exist.")

    def put(
        self,
        bucket: str,
        name: str,
        data: bytes,
        conditions: Preconditions = ANY,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> StoredObject:
        """Store a new generation of an object, whole and at once, if the present one is as demanded."""
        checksums = compute_checksums(data)
        with self._lock:
            self.require_bucket(bucket)
            conditions.check(self._objects.get((bucket, name)))
            generation = next(self._generations)
            stored = StoredObject(bucket, name, data, checksums, generation, 1, content_type, metadata or {})
            self._objects[bucket, name] = stored
            return stored

    def find(self, bucket: str, name: str, conditions: Preconditions = ANY) -> StoredObject:
        """Return an object if it is as demanded."""
        with self._lock:
            self.require_bucket(bucket)
            current = self._objects.get((bucket, name))
            if current or conditions.generation:  # Cloud Storage answers 412 also where there is no object.
                conditions.check(current)
            if not current:
                raise StorageError(404, "notFound", f"No such object: {bucket}/{name}")
            return current

    def remove(self, bucket: str, name: str, conditions: Preconditions = ANY) -> None:
        """Delete an object if it is as demanded."""
        with self._lock:
            self.find(bucket, name, conditions)
            del self._objects[bucket, name]

    def move(self, bucket: str, name: str, to_name: str, conditions: Preconditions = ANY) -> StoredObject:
        """Give an object another name in one step."""
        with self._lock:
            current = self.find(bucket, name)
            moved = self.put(bucket, to_name, current.data, conditions, current.content_type, current.metadata)
            del self._objects[bucket, name]
            return moved

    def annotate(self, bucket: str, name: str, metadata: Mapping[str, str], conditions: Preconditions = ANY) -> StoredObject:
        """Replace the metadata of an object, which keeps its generation and gets a new metageneration."""
        with self._lock:
            current = self.find(bucket, name, conditions)
            updated = replace(current, metadata=dict(metadata), metageneration=current.metageneration + 1)
            self._objects[bucket, name] = updated
            return updated

    def page(
        self,
        bucket: str,
        prefix: str = "",
        delimiter: str = "",
        start: str = "",
        end: str | None = None,
        after: str = "",
        limit: int = PAGE_SIZE,
    ) -> Page:
        """Return the next objects and prefixes behind the entry `after`, `limit` of both at most, in the order of names."""
        with self._lock:
            self.require_bucket(bucket)
            stored = [self._objects[key] for key in self if key[0] == bucket and key[1].startswith(prefix)]
        entries: dict[str, StoredObject | None] = {}
        for item in stored:
            if item.name >= start and (end is None or item.name < end):
                head, cut, _ = item.name[len(prefix) :].partition(delimiter) if delimiter else (item.name, "", "")
                entries.setdefault(prefix + head + cut, None) if cut else entries.update({item.name: item})
        remaining = [name for name in entries if name > after]
        chosen = remaining[: min(limit, PAGE_SIZE)]
        return Page(
            [found for name in chosen if (found := entries[name])],
            [name for name in chosen if not entries[name]],
            chosen[-1] if len(remaining) > len(chosen) else None,
        )
