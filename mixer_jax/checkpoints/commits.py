"""Commits of checkpoints in a bucket.

Orbax writes the arrays of a step through TensorStore and the rest through gcsfs. A bucket has no folder that could be renamed at
the end. A step there is complete when it has the object commit_success.txt, which Orbax writes last.
"""

import asyncio
from collections.abc import Callable

import fsspec
from orbax.checkpoint._src.path import atomicity  # It is private: the class that commits to buckets is not public.
from orbax.checkpoint._src.serialization import tensorstore_utils  # It is private: Orbax has no public option for retries.

from mixer_jax.bucket import RETRIES, set_up_gcsfs
from mixer_jax.errors import EnvironmentFault


def set_up_libraries() -> None:
    """Set how Orbax's libraries use buckets. Call this before they open one. Raises UserError if gcsfs is not installed."""
    set_up_gcsfs()
    for context in (tensorstore_utils._BASE_TS_CONTEXT, tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT):
        context["gcs_request_retries"] = RETRIES  # Otherwise TensorStore tries for 15 minutes, without a word.


def move_step(step: str, target: str) -> None:
    """Move a step that is damaged within a bucket: its objects are copied there and then deleted.

    After a kill in between, the step is still damaged, and the next start moves it again. Raises EnvironmentFault if this fails.
    """
    try:
        fsspec.filesystem("gcs").mv(step, target, recursive=True)
    except Exception as error:  # gcsfs and its libraries raise many types of errors.
        raise EnvironmentFault(f"{step} is damaged, and cannot be moved to {target} ({error}). Try again later.") from error


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
