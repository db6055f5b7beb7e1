"""What goes wrong with Cloud Storage, or between it and us. A fault stands between a request and the service."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stand_ins.cloud_protocol import Request, Response, refusal

Serve = Callable[[Request], Response]
REASONS = {401: "authError", 403: "forbidden", 404: "notFound", 429: "rateLimitExceeded", 503: "backendError"}


class HangUp(Exception):
    """The connection is cut without a response."""


@dataclass(kw_only=True)
class Fault:
    """The choice of the requests that something happens to: a random `share` of those that match, and `times` at most.

    A request matches if its action is one of `actions`, its bucket is `bucket`, and its object's name contains `name`.
    What is empty matches all. `Request.action` says which actions there are.
    """

    actions: tuple[str, ...] = ()
    bucket: str = ""
    name: str = ""
    share: float = 1.0
    times: float = float("inf")
    seed: int = 0
    strikes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.lifted = threading.Event()
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()

    def happens_to(self, request: Request) -> bool:
        """Choose whether it happens to `request`, and count it if so."""
        with self._lock:
            matches = (not self.actions or request.action in self.actions) and self.bucket in ("", request.bucket)
            happens = matches and self.name in request.name and self.strikes < self.times and self._random.random() < self.share
            self.strikes += happens
            return happens

    def answer(self, request: Request, serve: Serve) -> Response:
        """Answer a request that it happens to. `serve` is the service."""
        raise NotImplementedError


@dataclass
class Refuse(Fault):
    """Answers with one of `statuses`, and does not serve: 429 and 503 are overload, 403 is a missing right."""

    statuses: tuple[int, ...] = (503,)

    def answer(self, request: Request, serve: Serve) -> Response:
        status = self._random.choice(self.statuses)
        return refusal(status, REASONS.get(status, "fault"), f"The stand-in answers {status} on demand.")


@dataclass
class LoseAnswer(Fault):
    """Serves, and then answers 503: a write took effect, and its client does not know."""

    def answer(self, request: Request, serve: Serve) -> Response:
        served = serve(request)
        return refusal(503, "backendError", "The answer was lost.") if served.status < 400 else served


@dataclass
class Delay(Fault):
    """Waits before serving, until it is lifted. With many seconds this is a server that is silent."""

    seconds: float

    def answer(self, request: Request, serve: Serve) -> Response:
        self.lifted.wait(self.seconds)
        return serve(request)


@dataclass
class Down(Fault):
    """Cuts the connection without an answer."""

    def answer(self, request: Request, serve: Serve) -> Response:
        raise HangUp


@dataclass
class CutOff(Fault):
    """Cuts the connection in the middle of the body of a read or a list."""

    def answer(self, request: Request, serve: Serve) -> Response:
        served = serve(request)
        return replace(served, sent=len(served.body) // 2) if request.action in ("read", "list") else served


@dataclass
class WrongRange(Fault):
    """Answers a read of a range with something else. `how` is a key of WRONG_RANGES."""

    how: str

    def answer(self, request: Request, serve: Serve) -> Response:
        served = serve(request)
        return WRONG_RANGES[self.how](request, serve, served) if served.status == 206 else served


def flipped(request: Request, serve: Serve, served: Response) -> Response:
    """Return the range with one bit changed on its way."""
    return replace(served, body=bytes([served.body[0] ^ 1]) + served.body[1:])


def shifted(request: Request, serve: Serve, served: Response) -> Response:
    """Return as many bytes of another place of the object, as if they were those asked for."""
    start = int(served.headers["Content-Range"].split()[1].split("-")[0]) + 1
    data = serve(without_range(request)).body
    return replace(served, body=(data + data)[start : start + len(served.body)])


def short(request: Request, serve: Serve, served: Response) -> Response:
    """Return the first half of the range, and say so."""
    unit, _, span = served.headers["Content-Range"].partition(" ")
    start, size = int(span.split("-")[0]), span.split("/")[1]
    half = served.body[: len(served.body) // 2]
    content_range = f"{unit} {start}-{start + len(half) - 1}/{size}"
    return replace(served, body=half, headers={**served.headers, "Content-Range": content_range})


def whole(request: Request, serve: Serve, served: Response) -> Response:
    """Return the whole object, as a proxy does that knows no ranges."""
    return serve(without_range(request))


def without_range(request: Request) -> Request:
    return replace(request, headers={name: value for name, value in request.headers.items() if name != "range"})


WRONG_RANGES = {"flipped": flipped, "shifted": shifted, "short": short, "whole": whole}
