"""The benchmark of duplicates: what must be found is, what cannot be is not, and its figures are of one run."""

import json

import numpy as np
import simplejpeg

from benchmarks import near_duplicates as benchmark
from mixer_jax.app import run_tool
from mixer_jax.endings import DONE

TRIED = ("JPEG of quality 30", "0.5 times the size", "flipped", "gray", "cropped by 20 % at each side", "turned by 10 degrees")


def test_recall_false_positives_and_speed_are_measured(monkeypatch):
    monkeypatch.setattr(benchmark, "PART_SIDE", 200)
    monkeypatch.setattr(benchmark, "DRAWINGS", 20)
    monkeypatch.setattr(benchmark, "CROPPED_AT_RANDOM", (0.05,))
    monkeypatch.setattr(benchmark, "COPIES", {kind: benchmark.COPIES[kind] for kind in TRIED})
    figures = benchmark.benchmark_duplicates("", 60, 20)
    assert figures["images"] == 12
    for recall, least in ((figures["recall_percent"], 85), (figures["recall_percent_at_32_pixels"], 60)):
        assert 6 < recall["originals"] <= 12 and all(recall[kind] >= least for kind in TRIED[:4])
        assert all(recall[kind] == 0 for kind in TRIED[4:])
    false = figures["false_positives"]
    assert false.keys() == {"photographs", "photographs at 32 pixels", "drawings"}
    assert all(found["taken_for_copies"] == 0 < found["pairs"] for found in false.values())
    assert figures["matching"]["planted"] == figures["matching"]["planted_found"] == 2 and not figures["matching"]["others_found"]
    assert figures["within"]["pairs_found"] == 1
    assert figures["cpu_ms_per_image"].keys() == {"decode", "fingerprint"}


def test_a_pair_that_is_taken_for_copies_is_named(tmp_path, monkeypatch, capsys):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name, quality in (("a.jpg", 95), ("b.jpg", 80)):
        (tmp_path / name).write_bytes(simplejpeg.encode_jpeg(image, quality=quality))
    monkeypatch.setattr(benchmark, "COPIES", {})
    monkeypatch.setattr(benchmark, "DRAWINGS", 2)
    options = [f"--source=folder:{tmp_path}", "--images=3", "--references=2", "--json"]
    assert run_tool(benchmark.make_parser(), options) == DONE
    found = json.loads(capsys.readouterr().out)["false_positives"]["photographs"]
    assert found["taken_for_copies"] == 1 and {frozenset(row[1:]) for row in found["which"]} == {frozenset({"a.jpg", "b.jpg"})}
