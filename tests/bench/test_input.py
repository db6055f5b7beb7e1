"""`bench input` times every stage of the pipeline, and its verdict follows from these times."""

from pathlib import Path

import pytest

from mixer_jax.bench import input as benchmark
from mixer_jax.bench.photographs import Repeated, write_photographs
from mixer_jax.data.sources.folder import FolderSource
from mixer_jax.errors import UserError


@pytest.fixture
def photographs(tmp_path: Path) -> FolderSource:
    write_photographs(tmp_path, 4)
    return FolderSource(str(tmp_path), "")


def test_photographs_are_of_imagenets_usual_size(photographs):
    assert len(photographs) == 4 and photographs.num_classes == 2
    assert {photographs[i].decode(2**20, strict=True).image.shape for i in range(4)} == {(375, 500, 3)}


def test_a_few_photographs_stand_for_as_many_as_imagenet_has(photographs):
    source = Repeated(photographs, 3)
    assert len(source) == 1_281_167
    assert [source[i] for i in range(6)] == 2 * [photographs[i]._replace(partially_decodable=True) for i in range(3)]


def test_every_stage_of_the_pipeline_is_timed(photographs, tiny_config):
    tiny_config.augment.flip = True
    seconds = benchmark.stage_seconds(photographs, tiny_config, 4)
    assert {"read", "decode", "crop and resize"} <= seconds.keys()
    assert all(value > 0 for value in seconds.values())
    assert max(seconds, key=seconds.get) == "decode"  # It decodes 500 x 375 pixels, for a crop of 8 x 8.


def test_what_a_device_takes_is_its_peak_over_the_operations_of_a_step(tiny_config):
    tiny_config.model.update(variant="B/16", num_blocks=0, hidden_dim=0, tokens_mlp_dim=0, channels_mlp_dim=0)
    tiny_config.image_size = 224
    wanted = benchmark.wanted_images_per_sec(tiny_config, "TPU v3", 8)
    forward = 2 * 12.6e9  # Two operations for each of the 12.60 G multiply-adds of the sizes in table 1.
    assert wanted == pytest.approx(8 * benchmark.UTILIZATION * 61.5e12 / (3 * forward), rel=0.05)


def test_the_verdict_counts_cores_and_names_the_slowest_stage():
    seconds = {"decode": 0.003, "flip": 0.001}
    assert "for which 2.0 of 4 cores are enough" in benchmark.verdict(seconds, 500, 4, "B/16", "8 x TPU v3")
    slow = benchmark.verdict(seconds, 5000, 4, "B/16", "8 x TPU v3")
    assert slow.startswith("Not fast enough") and "needs 20 cores" in slow and "75% of their time goes to: decode" in slow


def test_a_device_that_is_not_in_the_table_is_refused(photographs, tiny_config):
    with pytest.raises(UserError, match="choose one of TPU v2"):
        benchmark.benchmark_input(tiny_config, photographs, 4, "abacus", 1, {})


def test_what_the_stages_do_not_explain_is_workers_and_buffers(photographs, tiny_config, monkeypatch):
    stages = {"decode": 0.001, "to device": 0.001}
    monkeypatch.setattr(benchmark, "stage_seconds", lambda *_: dict(stages))
    speed = {"images_per_cpu_sec": 500.0, "images_per_sec": {"1": 510.0, "2": 900.0}, "speed_up": 1.76}
    monkeypatch.setattr(benchmark, "pipeline_speeds", lambda *_: {"crop + flip": {"ours": speed}})
    figures = benchmark.benchmark_input(tiny_config, photographs, 4, "TPU v3", 8, {})
    assert figures["stage_cpu_ms_per_image"] == {
        "decode": 1.0,
        "to device": 1.0,
        "workers and buffers": 1.0,
    }  # The pipeline takes 2 ms without the device.
    lines = benchmark.format_benchmark(figures).splitlines()
    assert lines[1].split() == ["decode", "1000", "1.000", "33%"] and lines[-1] == figures["verdict"]
    assert ["ours", "500", "510", "900", "1.76"] in [line.split() for line in lines]
