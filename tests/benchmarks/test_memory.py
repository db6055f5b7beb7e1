"""The benchmark of memory makes a split that matches its manifest, and its figures keep within the memory budget."""

import errno
import os
from pathlib import Path

import pytest

from benchmarks import memory
from mixer_jax.config import dataset
from mixer_jax.data.sources.manifest import Manifest
from mixer_jax.data.sources.registry import open_source


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("most_links", [3, 1000])
def test_the_split_is_whole_and_has_as_many_images_as_asked_for(tmp_path: Path, monkeypatch, most_links):
    link = os.link

    def limited(file: Path, name: Path) -> None:
        if file.stat().st_nlink == most_links:
            raise OSError(errno.EMLINK, "Too many links")
        link(file, name)

    monkeypatch.setattr(os, "link", limited)
    assert memory.make_split(tmp_path, 83, 8) == 11
    Manifest(tmp_path / "train").check("whole", show_progress=False)
    source = open_source(dataset(f"records:{tmp_path}"))
    assert len(source) == 83
    assert [source[i].image for i in range(8)] == [source[i].image for i in range(8, 16)]
    files = {file.stat().st_ino for file in (tmp_path / "train").glob("*.array_record")}
    assert len(files) == (5 if most_links == 3 else 2)


def test_a_process_of_its_own_reads_within_its_budget(tmp_path: Path):
    memory.make_split(tmp_path, 1000, 100)
    figures = memory.run_in_fresh_process(str(tmp_path / "cache"), memory.measure, tmp_path, "full", 0.3)
    resident = figures["resident_mib"]
    assert 0 < resident["before"] <= resident["opened"] <= resident["peak"]
    assert resident["peak"] + resident["workers"] <= figures["budget_mib"] and resident["workers"] > 0
    assert 0 < figures["start_up_seconds"] < 10
    assert figures["images_read"] >= memory.BATCH_SIZE and figures["images_per_sec"] > 0
