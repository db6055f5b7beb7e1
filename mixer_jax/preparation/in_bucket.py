"""Prepares a split in a bucket: `python -m mixer_jax prepare --to gs://BUCKET/PATH`.

The split is made in a temporary folder of this machine by prepare.py and join.py, and upload.py moves it to the bucket as it is
made. The objects are bit for bit the files of the same preparation on a disk.
"""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from mixer_jax.bucket import Bucket
from mixer_jax.data.sources.manifest import MANIFEST, PLAN, UNFINISHED
from mixer_jax.errors import UserError
from mixer_jax.preparation.join import join
from mixer_jax.preparation.parts import Part
from mixer_jax.preparation.prepare import prepare, prepare_part
from mixer_jax.preparation.spec import PreparationSpec, check_split
from mixer_jax.preparation.unfinished import read_plan
from mixer_jax.preparation.upload import Upload


def prepare_in_bucket(spec: PreparationSpec, url: str, threads: int, part: Part | None = None) -> str:
    """Make, continue or repair the split gs://BUCKET/PATH/SPLIT or a part of it, and return a line that says so.

    Args:
        spec: The options.
        url: gs://BUCKET/PATH, where all splits of the data set are.
        threads: How many shards are made and uploaded at once.
        part: The part of the split to make. If there is none, the split is made and finished.

    Raises:
        UserError: The user must change an option, the source or the split first.
        EnvironmentFault: The bucket does not answer, or may not be written. The same command goes on.
    """
    check_split(spec.split)

    def make(upload: Upload) -> str:
        folder = upload.target.parent
        return prepare_part(spec, folder, threads, part, upload) if part else prepare(spec, folder, threads, upload).summary()

    return _work(url, spec.split, make)


def join_in_bucket(url: str, split: str, count: int) -> str:
    """Make the manifest of the split gs://BUCKET/PATH/SPLIT, whose shards were made as `count` parts, and return a summary.

    Raises UserError if a part is missing or what is there is damaged, and EnvironmentFault as `prepare_in_bucket`.
    """

    def make(upload: Upload) -> str:
        target = upload.target
        if (target / UNFINISHED / PLAN).exists() and not (target / MANIFEST).exists():
            plan = read_plan(target)
            upload.fetch_shards(plan, range(plan.num_shards))
        return join(target, count)

    return _work(url, split, make)


def _work(url: str, split: str, make: Callable[[Upload], str]) -> str:
    """Call `make` with a temporary folder for a split, upload the rest of what it makes there, and return what it returns.

    The text, and the messages of UserErrors, get the name of the bucket in place of that of the folder.
    """
    bucket = Bucket(f"{url.rstrip('/')}/{split}")
    bucket.probe()
    parent = bucket.url.rpartition("/")[0]
    with tempfile.TemporaryDirectory(prefix="mixer_jax-prepare-") as folder:

        def named(text: str) -> str:
            return re.sub(rf"\brm (-[rf] )?(?={re.escape(folder)})", "gcloud storage rm -r ", text).replace(folder, parent)

        upload = Upload(bucket, Path(folder, split))
        try:
            upload.fetch()
            said = make(upload)
            upload.finish()
        except UserError as error:
            raise UserError(named(str(error))) from error
        return named(said)
