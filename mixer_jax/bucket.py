"""Reads and writes objects in Google Cloud Storage, under a path gs://BUCKET/PATH.

TensorStore does it, which Orbax needs anyway. It takes the credentials that the machine has: those in the file that
GOOGLE_APPLICATION_CREDENTIALS names, those of `gcloud auth application-default login`, or those of the virtual machine. Without
any, it reads public buckets.

A request is tried again, with growing pauses, if the connection fails or the storage asks to try later (429, 5xx). A write takes
effect whole or not at all. Each write gives the object a new generation, a mark by which a later write can ask that nobody has
written in between.
"""

import contextlib
import importlib.util
import itertools
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from mixer_jax.errors import EnvironmentFault, UserError

SCHEME = "gs://"
RETRIES = {"max_retries": 6, "initial_delay": "500ms", "max_delay": "8s"}  # The pauses add up to about 25 s.
RANGE_BYTES = 2**23  # Of a large object, for one request.
REQUESTS_AT_ONCE = 64  # The most requests of a process that are under way. TensorStore would have 32.
SECONDS = 120  # The longest time for a request with all its attempts, but for the bytes of a write.
SLOWEST_BYTES_PER_SECOND = 2**20  # Of a write.
PROBE_SECONDS = 30
NEVER_WRITTEN = b"\x02"  # What TensorStore calls the generation of an object that does not exist.
LOST = b""  # What TensorStore calls the generation after a write whose condition does not hold.
MAX_REASON = 300  # The most characters of an error of TensorStore in a message.
# The beginnings of TensorStore's errors that trying again does not mend.
FORBIDDEN = ("PERMISSION_DENIED", "UNAUTHENTICATED")
TOO_SHORT, MISSING = "OUT_OF_RANGE", "NOT_FOUND"


def requests_sent() -> int:
    """Return the number of HTTP requests that this process has sent by TensorStore, with those that were tried again."""
    import tensorstore  # Not above, because every process that decodes images imports this file: this takes 18 MiB.

    metrics = tensorstore.experimental_collect_matching_metrics("/tensorstore/http/request_completed")
    return sum(value["value"] for metric in metrics for value in metric["values"])


class TooShortError(UserError):
    """An object ends before the bytes that were asked for."""


def is_in_bucket(path: str) -> bool:
    """Return whether a path names a bucket. Raises UserError for another kind of storage, such as s3://."""
    if "://" in path and not path.startswith(SCHEME):
        raise UserError(f"{path}: of all buckets, only those of Google Cloud Storage can be used here: gs://BUCKET/PATH.")
    return path.startswith(SCHEME)


def set_up_gcsfs() -> None:
    """Set how the paths of Orbax and JAX use gcsfs. Call this before they open one. Raises UserError if it is not installed."""
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError("Checkpoints and compiled programs in a bucket need a library that is not installed: pip install gcsfs")
    from fsspec.config import conf  # Not above, because every process that decodes images imports this file.

    os.environ["EPATH_USE_TF"] = "false"  # Otherwise, where TensorFlow is installed, paths of buckets are opened by it.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # Otherwise gcsfs asks for the kind of each bucket, and warns.
    for scheme in ("gs", "gcs"):
        conf.setdefault(scheme, {})["use_listings_cache"] = False  # gcsfs would never see what other hosts write.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # It logs a traceback at each attempt, and raises the last error too.


class Written(NamedTuple):
    """What an object holds, and the mark of the write that put it there."""

    value: bytes
    generation: bytes


class Bucket:
    """The objects whose names begin with a path.

    Attributes:
      url: gs://BUCKET/PATH, without a slash at the end.
    """

    def __init__(self, url: str):
        """Take a URL. Nothing is read yet. Raises UserError if no bucket can have this name."""
        import tensorstore  # Not above, because every process that decodes images imports this file: this takes 18 MiB.

        name, _, path = url.removeprefix(SCHEME).rstrip("/").partition("/")
        self.url = f"{SCHEME}{name}/{path}".rstrip("/")
        spec = {"driver": "gcs", "bucket": name, "path": f"{path}/" if path else ""}
        try:
            context = tensorstore.Context(
                {"gcs_request_retries": RETRIES, "gcs_request_concurrency": {"limit": REQUESTS_AT_ONCE}}
            )
            self._objects = tensorstore.KvStore.open(spec, context=context).result()
        except ValueError as error:
            raise UserError(f"{url} names no bucket: write gs://BUCKET/PATH ({_reason(error)}).") from error

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """Return the bytes from `start` to `stop` of an object, or None if there is no such object or no such bucket.

        Raises UserError if this machine may not read the object, TooShortError if it ends before `stop`, and EnvironmentFault if
        the storage does not answer.
        """
        return self.start_read(name, start, stop)()

    def start_read(self, name: str, start: int = 0, stop: int | None = None) -> Callable[[], bytes | None]:
        """Start to read, and return a function that waits for what `read` returns. Many reads may be under way at once."""
        future = self._objects.read(name, byte_range=slice(start, stop))

        def wait() -> bytes | None:
            found = self._result(name, lambda: future)
            return None if found.state == "missing" else found.value

        return wait

    def read_whole(self, name: str, max_bytes: int) -> bytes | None:
        """Return an object, or None if there is none. Raises the errors of `read`, and UserError for more than `max_bytes`."""
        with contextlib.suppress(TooShortError):
            if self.read(name, max_bytes, max_bytes + 1) is not None:  # TensorStore does not tell the size of an object.
                raise UserError(f"{self.url}/{name} has more than {max_bytes} bytes: it is not what its name says.")
        return self.read(name)

    def read_ranges(self, name: str) -> Iterator[bytes]:
        """Yield the content of an object, range by range, or nothing if there is none. Raises the errors of `read`."""
        for start in itertools.count(0, RANGE_BYTES):  # TensorStore does not tell the size of an object.
            try:
                content = self.read(name, start, start + RANGE_BYTES)
            except TooShortError:
                break
            if content is None:
                return
            yield content
        with contextlib.suppress(TooShortError):  # The object ends with the last range.
            yield self.read(name, start) or b""

    def read_written(self, name: str) -> Written | None:
        """Return an object and its generation, or None if there is none. Raises the errors of `read`."""
        found = self._result(name, lambda: self._objects.read(name))
        return None if found.state == "missing" else Written(found.value, found.stamp.generation)

    def generation(self, name: str) -> bytes | None:
        """Return the generation of an object, or None if there is none. Raises the errors of `read`."""
        found = self._result(name, lambda: self._objects.read(name, byte_range=slice(0, 0)))
        return None if found.state == "missing" else found.stamp.generation

    def write(self, name: str, value: bytes) -> None:
        """Write an object, in the place of the one with this name. Raises the errors of `read` but TooShortError."""
        seconds = SECONDS + len(value) / SLOWEST_BYTES_PER_SECOND
        self._result(name, lambda: self._objects.write(name, value), "written", seconds)

    def write_if_unchanged(self, name: str, value: bytes, generation: bytes = NEVER_WRITTEN) -> bytes | None:
        """Write an object if its generation is still this one, and return the new one, or None if it is another.

        No two calls may write the same value. For if the answer to a write is lost, TensorStore tries again, and then finds the
        generation of its own first attempt. Raises the errors of `write`.
        """
        stamp = self._result(name, lambda: self._objects.write(name, value, if_equal=generation), "written")
        if stamp.generation != LOST:
            return stamp.generation
        found = self.read_written(name)
        return found.generation if found and found.value == value else None

    def delete(self, name: str, generation: bytes | None = None) -> None:
        """Delete an object if there is one, and if its generation is still this one. Raises the errors of `write`."""
        self._result(name, lambda: self._objects.write(name, None, if_equal=generation), "deleted")

    def probe(self, seconds: float = PROBE_SECONDS) -> None:
        """Write, replace, read, list and delete an object of a new name, to learn within `seconds` whether this machine may.

        Raises EnvironmentFault if one of these fails: the bucket's name is wrong, this machine lacks a right, which may take
        minutes to arrive after it was given, or the storage does not answer.
        """
        import tensorstore

        name, deadline = f".probe-{secrets.token_hex(8)}", time.monotonic() + seconds
        steps: dict[str, Callable[[], Any]] = {
            "written": lambda: self._objects.write(name, b"1"),
            "replaced": lambda: self._objects.write(name, b"2"),
            "read": lambda: self._objects.read(name),
            "listed": lambda: self._objects.list(tensorstore.KvStore.KeyRange(name, f"{name}~")),
            "deleted": lambda: self._objects.write(name, None),
        }
        try:
            answers = {done: self._result(name, step, done, deadline - time.monotonic()) for done, step in steps.items()}
        except UserError as error:
            raise EnvironmentFault(str(error)) from error
        if answers["read"].value != b"2" or answers["listed"] != [name.encode()]:
            # TensorStore lists nothing, without an error, where it may not list.
            raise EnvironmentFault(
                f"What is written to {self.url} cannot be listed and read: give this account the role Storage Object User there."
            )

    def names(self) -> list[str]:
        """Return the names of all objects, sorted. Raises the errors of `read`."""
        names = sorted(name.decode(errors="replace") for name in self._result("", self._objects.list))
        if not names:
            # TensorStore finds nothing, without an error, where it may not list. There, reading fails for any name.
            self._result("", lambda: self._objects.read("nothing"))
        return names

    def _result(self, name: str, request: Callable[[], Any], done: str = "read", seconds: float | None = None) -> Any:
        """Return the result of a request, by which an object is read, written and so on. Raises the errors of `read`."""
        where, future, seconds = f"{self.url}/{name}".rstrip("/"), request(), SECONDS if seconds is None else max(0.0, seconds)
        try:
            return future.result(timeout=seconds)
        except TimeoutError as error:
            future.cancel()
            raise EnvironmentFault(f"{where} cannot be {done}: no answer within {seconds:g} s. Try again later.") from error
        except ValueError as error:
            reason = _reason(error)
            if reason.startswith(FORBIDDEN):
                raise UserError(
                    f"{where} may not be {done} with the credentials of this machine ({reason}). Log in, for example by `gcloud "
                    "auth application-default login`, or give this account the right."
                ) from error
            if reason.startswith(TOO_SHORT):
                raise TooShortError(f"{where} is shorter than it should be ({reason}). Upload it again.") from error
            if reason.startswith(MISSING):
                raise UserError(f"{where} cannot be {done}: there is no such bucket ({reason}).") from error
            raise EnvironmentFault(f"{where} cannot be {done} ({reason}). Try again later.") from error


def _reason(error: Exception) -> str:
    """Return the message of an error of TensorStore in a line, without the details of the response."""
    return " ".join(str(error).partition(" [http_")[0].split())[:MAX_REASON]
