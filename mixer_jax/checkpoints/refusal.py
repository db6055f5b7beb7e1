"""What both kinds of weight files are refused for, and in what words."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

LIST_LIMIT = 4 << 20  # bytes of a file's list of arrays; Mixer-L/16's is a hundredth of it
MAX_NDIM, MAX_ITEMS = 32, 2**59  # numpy's limits, for items of up to 16 bytes

AGAIN = "Download or copy it again"
PYTORCH = (
    "is a PyTorch pickle, and loading one can run code. Convert it to safetensors where PyTorch is installed: "
    "torch.load(..., weights_only=True), then safetensors.torch.save_file"
)

Signatures = dict[str, tuple[str, tuple[int, ...]]]  # {name: (dtype, shape)}
Opened = tuple[Signatures, Callable[[], dict[str, np.ndarray]], dict[str, str]]  # what is there, how to read it, metadata


class Refused(Exception):
    """Why a file is refused: what follows its name in the message."""


class Unavailable(Refused):
    """The same, where the file may be taken another time: the disk is full, or the network is down."""


def check_unique(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise Refused(f"holds '{twice[0][:100]}' twice")


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Refuses a shape that numpy cannot make, also when it is of no items."""
    if len(shape) > MAX_NDIM or min(shape, default=0) < 0 or math.prod(max(dim, 1) for dim in shape) > MAX_ITEMS:
        raise Refused(f"holds '{name[:100]}' of an impossible shape, {str(shape)[:100]}")
