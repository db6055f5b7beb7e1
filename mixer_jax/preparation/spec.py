"""What `python -m mixer_jax prepare` is asked for."""

import shlex
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class PreparationSpec:
    """What a command asks for, as far as the shards depend on it."""

    source: str  # KIND:PATH
    split: str
    classes: str = ""
    labels: str = ""
    synsets: str = ""
    under: str = ""  # of an archive, only what lies in this folder
    data_dir: str = ""
    max_side: int = 0  # pixels; an image with a longer side is made smaller and written as JPEG; 0: all bytes are kept
    quality: int = 95  # of those JPEGs
    records_per_shard: int = 2048
    seed: int = 0  # of the order
    drop_near_duplicates_of: tuple[str, ...] = ()  # KIND:PATH of images that must not be among them: references.py
    drop_near_duplicates_within: bool = False  # keep the first of images that are copies of each other: within.py
    near_duplicate_correlation: float = 0.9  # of the aligned details of two images, from which on they are copies
    near_duplicate_detail: float = 0.5  # of a thumbnail (fingerprint.py); an image with less is compared by its bytes alone
    skip_unreadable: bool = False
    allow_empty_classes: bool = False

    @property
    def drops_near_duplicates(self) -> bool:
        """Whether images are compared with others."""
        return bool(self.drop_near_duplicates_of) or self.drop_near_duplicates_within

    def command(self) -> str:
        """Return the command that makes the same shards, without --to."""
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
