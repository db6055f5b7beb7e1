"""Fixtures that stand in: Google Cloud Storage on this machine, empty but for the bucket "bucket", and a clock for scripts."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_ins.cloud_clients import QUICK_RETRIES
from stand_ins.cloud_storage import CloudStorage

from mixer_jax.bucket import RETRIES


@pytest.fixture(scope="session")
def cloud_server() -> Iterator[CloudStorage]:
    """Run one server for all tests, since etils and fsspec remember the first URL that they were sent to."""
    with CloudStorage() as server:
        yield server


@pytest.fixture
def cloud(cloud_server, monkeypatch) -> Iterator[CloudStorage]:
    for name, value in cloud_server.environment().items():
        monkeypatch.setenv(name, value)
    for name, value in QUICK_RETRIES.items():
        monkeypatch.setitem(RETRIES, name, value)
    cloud_server.reset()
    forget_lists()
    yield cloud_server
    cloud_server.heal()


def forget_lists() -> None:
    """Make gcsfs forget what it listed in the test before."""
    if "gcsfs" in sys.modules:
        for filesystem in sys.modules["gcsfs"].GCSFileSystem._cache.values():
            filesystem.invalidate_cache()


@pytest.fixture
def ticking_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `date` tell scripts the seconds 2, 4, 6 and so on: the clock ticks between any two readings."""
    folder = tmp_path / "clock"
    folder.mkdir()
    readings = folder / "readings"
    (folder / "date").write_text(f"#!/bin/bash\necho >> {readings}\necho $((2 * $(wc -l < {readings})))\n")
    (folder / "date").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
