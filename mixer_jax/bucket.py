"""Reads objects in Google Cloud Storage, under a path gs://BUCKET/PATH.

TensorStore does it, which Orbax needs anyway. It takes the credentials that the machine has: those in the file that
GOOGLE_APPLICATION_CREDENTIALS names, those of `gcloud auth application-default login`, or those of the virtual machine. Without
any, it reads public buckets.

A request is tried again, with growing pauses, if the connection fails or the storage asks to try later (429, 5xx).
"""

import contextlib
from collections.abc import Callable
from typing import Any

from mixer_jax.errors import EnvironmentFault, UserError

SCHEME = "gs://"
RETRIES = {"max_retries": 6, "initial_delay": "500ms", "max_delay": "8s"}  # The pauses add up to about 25 s.
SECONDS = 120  # The longest time for a request with all its attempts.
MAX_REASON = 300  # The most characters of an error of TensorStore in a message.
# The beginnings of TensorStore's errors that trying again does not mend.
FORBIDDEN = ("PERMISSION_DENIED", "UNAUTHENTICATED")
TOO_SHORT = "OUT_OF_RANGE"


class TooShortError(UserError):
    """An object ends before the bytes that were asked for."""


def is_in_bucket(path: str) -> bool:
    """Return whether a path names a bucket. Raises UserError for another kind of storage, such as s3://."""
    if "://" in path and not path.startswith(SCHEME):
        raise UserError(f"{path}: of all buckets, only those of Google Cloud Storage can be read here: gs://BUCKET/PATH.")
    return path.startswith(SCHEME)


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
            self._objects = tensorstore.KvStore.open(spec, context=tensorstore.Context({"gcs_request_retries": RETRIES})).result()
        except ValueError as error:
            raise UserError(f"{url} names no bucket: write gs://BUCKET/PATH ({_reason(error)}).") from error

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """Return the bytes from `start` to `stop` of an object, or None if there is no such object or no such bucket.

        Raises UserError if this machine may not read the object, TooShortError if it ends before `stop`, and EnvironmentFault if
        the storage does not answer.
        """
        found = self._result(name, lambda: self._objects.read(name, byte_range=slice(start, stop)))
        return None if found.state == "missing" else found.value

    def read_whole(self, name: str, max_bytes: int) -> bytes | None:
        """Return an object, or None if there is none. Raises the errors of `read`, and UserError for more than `max_bytes`."""
        with contextlib.suppress(TooShortError):
            if self.read(name, max_bytes, max_bytes + 1) is not None:  # TensorStore does not tell the size of an object.
                raise UserError(f"{self.url}/{name} has more than {max_bytes} bytes: it is not what its name says.")
        return self.read(name)

    def names(self) -> list[str]:
        """Return the names of all objects, sorted. Raises the errors of `read`."""
        names = sorted(name.decode(errors="replace") for name in self._result("", self._objects.list))
        if not names:
            # TensorStore finds nothing, without an error, where it may not list. There, reading fails for any name.
            self._result("", lambda: self._objects.read("nothing"))
        return names

    def _result(self, name: str, request: Callable[[], Any]) -> Any:
        """Return the result of a request. Raises the errors of `read`."""
        where, future = f"{self.url}/{name}".rstrip("/"), request()
        try:
            return future.result(timeout=SECONDS)
        except TimeoutError as error:
            future.cancel()
            raise EnvironmentFault(f"{where} cannot be read: no answer within {SECONDS} s. Try again later.") from error
        except ValueError as error:
            reason = _reason(error)
            if reason.startswith(FORBIDDEN):
                raise UserError(
                    f"{where} may not be read with the credentials of this machine ({reason}). Log in, for example by `gcloud "
                    "auth application-default login`, or let this account read the bucket."
                ) from error
            if reason.startswith(TOO_SHORT):
                raise TooShortError(f"{where} is shorter than it should be ({reason}). Upload it again.") from error
            raise EnvironmentFault(f"{where} cannot be read ({reason}). Try again later.") from error


def _reason(error: Exception) -> str:
    """Return the message of an error of TensorStore in a line, without the details of the response."""
    return " ".join(str(error).partition(" [http_")[0].split())[:MAX_REASON]
