"""The Mixers that the paper's authors released: their list, and their files, which are downloaded once and kept.

`python -m mixer_jax weights list` prints the list. Wherever weights are named, released:NAME is one of these files.
The names and sizes of the files come from the model listing of google-research/vision_transformer. The authors published no
digests of the files, so a download is checked by its size and by the checksums in the file, and its SHA-256 is printed.
"""

import dataclasses
import hashlib
import sys
from pathlib import Path

from mixer_jax.checkpoints.files import download, naming, read_arrays
from mixer_jax.checkpoints.refusal import Refused, Unavailable
from mixer_jax.errors import UserError
from mixer_jax.storage import cache_folder, open_regular, write_whole

PREFIX = "released:"
FOLDER_URL = "https://storage.googleapis.com/mixer_models"


@dataclasses.dataclass(frozen=True)
class Released:
    """A released file, whose model takes images of 224 x 224 pixels."""

    name: str
    variant: str
    num_classes: int
    mebibytes: float
    data: str

    @property
    def url(self) -> str:
        """The URL of the file."""
        return f"{FOLDER_URL}/{self.name}.npz"


FROM_SCRATCH = "ImageNet-1k, from scratch"
ON_21K = "ImageNet-21k"
RELEASED = (
    Released("imagenet1k/Mixer-B_16", "B/16", 1000, 228.47, FROM_SCRATCH),
    Released("imagenet1k/Mixer-L_16", "L/16", 1000, 794.29, FROM_SCRATCH),
    Released("imagenet21k/Mixer-B_16", "B/16", 21_843, 289.61, ON_21K),
    Released("imagenet21k/Mixer-L_16", "L/16", 21_843, 875.78, ON_21K),
)

# The accuracies, the file names and a statement of the authors (pull request 651 of timm) agree: no Mixer that was pre-trained on
# ImageNet-21k and fine-tuned on ImageNet-1k was ever released.
TRAP_OF_NAMES = (
    "timm's mixer_b16_224.goog_in21k_ft_in1k and mixer_l16_224.goog_in21k_ft_in1k hold the imagenet1k weights, trained from "
    "scratch: nothing of them saw ImageNet-21k. timm's mixer_b16_224.miil_* have the same shapes, but other weights, which want "
    "pixels in [0, 1]."
)


def list_released() -> str:
    """Return the table of the released files, with a warning about misleading names of the same weights in timm."""
    lines = [f"{'name':24} {'classes':>7} {'MiB':>7}  {'trained on':26} URL"]
    lines += [f"{row.name:24} {row.num_classes:7} {row.mebibytes:7.2f}  {row.data:26} {row.url}" for row in RELEASED]
    return "\n".join([*lines, "", TRAP_OF_NAMES])


def is_released(path: str) -> bool:
    """Return whether a path is released:NAME."""
    return path.startswith(PREFIX)


def is_remote(path: str) -> bool:
    """Return whether a path of weights names no file or folder of this machine: released:NAME, or SCHEME://..."""
    return is_released(path) or "://" in path


def fetch(path: str) -> str:
    """Return the local path of the file released:NAME, which is downloaded into the user's cache if it is not there.

    A download is kept only if it is whole. Its SHA-256 is then printed on standard error.

    Raises:
      UserError: there is no such name, no cache folder, or others may write in the cache folder.
      EnvironmentFault: the connection fails, or what comes is damaged.
    """
    row = _row(path)
    folder = cache_folder("released")
    if folder is None:
        raise UserError(f"{path} has nowhere to be kept: set XDG_CACHE_HOME to a folder in which you may write.")
    file = folder / f"{row.name.replace('/', '-')}.npz"
    if not (file.is_file() and mebibytes(file) == row.mebibytes):
        with naming(path), write_whole(file) as temporary:
            _download(row, temporary)
            sha256 = file_sha256(temporary)
        print(f"{path}: {row.mebibytes} MiB from {row.url}, kept as {file}. Its SHA-256 is {sha256}.", file=sys.stderr)
    return str(file)


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _row(path: str) -> Released:
    """Return the released file of a path. Raises UserError if there is none of this name."""
    name = path.removeprefix(PREFIX)
    for row in RELEASED:
        if row.name == name:
            return row
    raise UserError(f"There are no released weights {name!r}: there are {', '.join(row.name for row in RELEASED)}.")


def _download(row: Released, temporary: Path) -> None:
    """Download a released file to a temporary path. Raises Refused unless it is whole, so that it is not kept."""
    try:
        download(row.url, str(temporary))
    except FileNotFoundError as error:
        raise Refused(f"is no longer at {row.url}") from error
    if mebibytes(temporary) != row.mebibytes:
        raise Unavailable(f"came with {mebibytes(temporary)} MiB from {row.url}, and has {row.mebibytes}. Nothing was kept")
    try:
        read_arrays(str(temporary))
    except UserError as error:
        raise Unavailable(f"came damaged from {row.url}. Nothing was kept: try again") from error


def mebibytes(file: Path) -> float:
    """Return the size of a file as the table states it."""
    return round(file.stat().st_size / 2**20, 2)
