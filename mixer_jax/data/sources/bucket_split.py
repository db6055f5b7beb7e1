"""What is read first of a split in a bucket, gs://BUCKET/PATH/SPLIT: its manifest, or the names of the splits that there are."""

from mixer_jax.bucket import Bucket
from mixer_jax.data.sources.manifest import MANIFEST, Manifest
from mixer_jax.errors import UserError
from mixer_jax.storage import MAX_JSON_BYTES, parse_json


def read_manifest(bucket: Bucket) -> tuple[Manifest, bytes]:
    """Return the manifest of the split in a bucket, and its bytes.

    Raises UserError if there is no such split or its manifest is damaged, and the errors of `Bucket.read`.
    """
    if (text := bucket.read_whole(MANIFEST, MAX_JSON_BYTES)) is None:
        raise UserError(_explain_missing(bucket.url))
    return Manifest(bucket.url, parse_json(text, f"{bucket.url}/{MANIFEST}")), text


def splits_in_bucket(url: str) -> tuple[str, ...]:
    """Return the names of the prepared splits in gs://BUCKET/PATH, sorted. Raises the errors of `Bucket.read`."""
    parts = [name.split("/") for name in Bucket(url).names()]
    return tuple(part[0] for part in parts if part[1:] == [MANIFEST])


def explain_missing_object(bucket: Bucket, name: str) -> str:
    """Return a sentence about an object of a split that is not there."""
    return f"{bucket.url}/{name} is missing, and {MANIFEST} there lists it. Upload it again."


def _explain_missing(url: str) -> str:
    parent, _, _ = url.rpartition("/")
    splits = splits_in_bucket(url if parent == "gs:/" else parent)
    known = f"There are the splits {', '.join(splits)}." if splits else "There is no prepared split: upload what `prepare` made."
    return f"{url} has no {MANIFEST}, or there is no such bucket. {known}"
