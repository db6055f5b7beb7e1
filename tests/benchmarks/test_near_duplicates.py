"""The benchmark of duplicates: what must be found is, what cannot be is not, and its figures are of one run."""

import json

import numpy as np
import simplejpeg

from benchmarks import near_duplicates as benchmark
from mixer_jax.app import DONE, run_tool


def test_recall_false_positives_and_speed_are_measured(monkeypatch):
    monkeypatch.setattr(benchmark, "PART_SIDE", 200)
    figures = benchmark.benchmark_duplicates("", 60, 20)
    assert figures["images"] == 12 and figures["too_plain_to_hash"] < 6
    recall = figures["recall_percent"]
    assert all(recall[kind] == 100 for kind in ("JPEG of quality 30", "half the size", "flipped", "grey"))
    assert recall["cropped by 20 % at each side"] == 0
    assert figures["false_positives"]["taken_for_copies"] == 0 < figures["false_positives"]["pairs"]
    assert figures["matching"]["planted"] == figures["matching"]["planted_found"] == 60
    assert figures["cpu_ms_per_image"].keys() == {"decode", "fingerprint", "fingerprint of a reference"}


def test_a_pair_that_is_taken_for_copies_is_named(tmp_path, monkeypatch, capsys):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name, quality in (("a.jpg", 95), ("b.jpg", 80)):
        (tmp_path / name).write_bytes(simplejpeg.encode_jpeg(image, quality=quality))
    monkeypatch.setattr(benchmark, "COPIES", {})
    options = [f"--source=folder:{tmp_path}", "--images=3", "--references=2", "--json"]
    assert run_tool(benchmark.make_parser(), options) == DONE
    found = json.loads(capsys.readouterr().out)["false_positives"]
    assert found["taken_for_copies"] == 2 and {frozenset(row[1:]) for row in found["which"]} == {frozenset({"a.jpg", "b.jpg"})}
