"""The options of `python -m mixer_jax prepare` on which the shards depend."""

import shlex
from dataclasses import asdict, dataclass

from mixer_jax.errors import UserError


@dataclass(frozen=True)
class PreparationSpec:
    """The options of a preparation on which its shards depend. From equal sources, equal options make equal shards."""

    source: str  # KIND:PATH of the images
    split: str  # the name of the split to make
    classes: str = ""  # the file of class names; these paths are empty if not given
    labels: str = ""  # the file of labels
    synsets: str = ""  # ImageNet's meta.mat
    under: str = ""  # the folder of the source whose images are taken; empty: all
    data_dir: str = ""  # the folder of the data that TFDS prepared
    max_side: int = 0  # pixels; an image with a longer side is made smaller and written as JPEG; 0: all bytes are kept
    quality: int = 95  # of the JPEGs that max_side makes
    records_per_shard: int = 2048  # the largest number of images in a shard
    seed: int = 0  # of the order of the images
    drop_near_duplicates_of: tuple[str, ...] = ()  # KIND:PATH of images whose copies are left out
    drop_near_duplicates_within: bool = False  # whether only the first of images that are copies of each other is kept
    near_duplicate_correlation: float = 0.9  # Images whose aligned details correlate by at least this much are copies.
    near_duplicate_detail: float = 0.5  # An image with less detail (fingerprint.py) is compared by its bytes alone.
    skip_unreadable: bool = False  # whether images that cannot be read or decoded are left out; if not, they are an error
    allow_empty_classes: bool = False  # whether classes may have no image

    @property
    def drops_near_duplicates(self) -> bool:
        """Whether copies of any images are left out."""
        return bool(self.drop_near_duplicates_of) or self.drop_near_duplicates_within

    def command(self) -> str:
        """Return the command that makes these shards, without its option --to."""
        changed = {
            name: value
            for name, value in asdict(self).items()
            if value != getattr(PreparationSpec, name, None) or name == "split"
        }
        words = ["python", "-m", "mixer_jax", "prepare"]
        for name, value in changed.items():
            values = () if value is True else value if isinstance(value, tuple) else (str(value),)
            words += [f"--{'from' if name == 'source' else name.replace('_', '-')}", *values]
        return shlex.join(words)


def check_split(name: str) -> None:
    """Raise UserError if a split cannot have this name, which is also that of its folder."""
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"--split {name!r}: it must be a name of letters, digits, - and _, such as train.")
