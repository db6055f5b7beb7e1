"""The limits, checks and error types that .npz and .safetensors files have in common."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

LIST_LIMIT = 4 << 20  # The most bytes that a file's list of arrays may have. Mixer-L/16's list has a hundredth of that.
MAX_NDIM, MAX_ITEMS = 32, 2**59  # NumPy's limits, for items of up to 16 bytes.

AGAIN = "Download or copy it again"
PYTORCH = (
    "is a PyTorch pickle, and loading one can run code. Convert it to safetensors where PyTorch is installed: "
    "torch.load(..., weights_only=True), then safetensors.torch.save_file"
)

Signatures = dict[str, tuple[str, tuple[int, ...]]]  # {name: (dtype, shape)}
Opened = tuple[Signatures, Callable[[], dict[str, np.ndarray]], dict[str, str]]  # (signatures, read, metadata) of an open file


class Refused(Exception):
    """An error whose text says why a file is refused. The caller puts the file's name in front of it."""


class Unavailable(Refused):
    """A refusal that may not occur at the next attempt, because the disk is full or the network is down."""


def check_unique(names: list[str]) -> None:
    """Raise Refused if a name occurs twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise Refused(f"holds '{twice[0][:100]}' twice")


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Raise Refused for a shape that NumPy cannot create, even if one of its dimensions is 0."""
    if len(shape) > MAX_NDIM or min(shape, default=0) < 0 or math.prod(max(dim, 1) for dim in shape) > MAX_ITEMS:
        raise Refused(f"holds '{name[:100]}' of an impossible shape, {str(shape)[:100]}")
