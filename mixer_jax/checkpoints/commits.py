"""Commits of checkpoints in a bucket.

Orbax writes the arrays of a step through TensorStore and the rest through gcsfs. A bucket has no folder that could be renamed at
the end. A step there is complete when it has the object commit_success.txt, which Orbax writes last.
"""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from orbax.checkpoint._src.path import atomicity  # It is private: the class that commits to buckets is not public.
from orbax.checkpoint._src.serialization import tensorstore_utils  # It is private: Orbax has no public option for retries.

from mixer_jax.bucket import REQUESTS_AT_ONCE, RETRIES, Bucket, set_up_gcsfs
from mixer_jax.checkpoints.committed_steps import CHECKPOINTS, committed_in_bucket
from mixer_jax.storage import json_text


def set_up_libraries() -> None:
    """Set how Orbax's libraries use buckets. Call this before they open one. Raises UserError if gcsfs is not installed."""
    set_up_gcsfs()
    for context in (tensorstore_utils._BASE_TS_CONTEXT, tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT):
        context["gcs_request_retries"] = RETRIES  # Otherwise TensorStore tries for 15 minutes, without a word.


def uncommit(workdir: str, step: int, mark: str, reason: str) -> None:
    """Mark a damaged step of the run in a bucket, so that it is passed over. Raises the errors of `Bucket.write`.

    The object `mark` says why. A single deletion takes the commit back, so the step is never between two states. From then on it
    is like a save that was cut off: its objects are removed at the next start, or when the step is saved again.
    """
    bucket = Bucket(workdir)
    bucket.write(mark, json_text({"step": step, "reason": reason}, indent=2).encode())
    bucket.delete(f"{CHECKPOINTS}/{step}/{atomicity.COMMIT_SUCCESS_FILE}")


def remove_uncommitted(workdir: str) -> None:
    """Delete the objects of steps whose save was cut off. Raises the errors of `Bucket.delete`.

    Orbax can do this too, but does it while it lists the steps. Where no other object is left, the listing then fails.
    """
    bucket = Bucket(workdir)
    names = bucket.names()
    committed = committed_in_bucket(names)
    objects = filter(None, (re.match(rf"{CHECKPOINTS}/(\d+)/", name) for name in names))
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        list(threads.map(bucket.delete, [match.string for match in objects if int(match[1]) not in committed]))


def checked_commits(check: Callable[[], None]) -> type[atomicity.CommitFileTemporaryPath]:
    """Return a class for Orbax's option `temporary_path_class`, which calls `check` just before each commit.

    If `check` raises an error, nothing is committed, and Orbax raises the error when the save is waited for.
    """

    class CheckedPath(atomicity.CommitFileTemporaryPath):
        """A step, or one of its items, that is being written."""

        async def finalize(self) -> None:
            if self.get_final().name.isdigit():  # It is the step. The names of items are words.
                await asyncio.to_thread(check)
            await super().finalize()

    return CheckedPath
