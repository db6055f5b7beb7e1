"""`bench step` and `bench predict` compare the same work, let contestants take turns, and print every figure."""

import itertools
import time
from pathlib import Path

import jax.numpy as jnp
import pytest

from mixer_jax import accelerators, parallel
from mixer_jax.bench import step
from mixer_jax.bench.contestants import (
    COMPARABLE,
    Contestant,
    compile_step,
    contestant_names,
    contestant_program,
    random_batch,
)
from mixer_jax.bench.fresh_process import run_in_fresh_process
from mixer_jax.bench.step import Seconds
from mixer_jax.models.reference import ReferenceMixer


@pytest.mark.parametrize(
    ("kind", "changes", "who"),
    [
        ("step", COMPARABLE, ["ours", "reference"]),
        ("step", COMPARABLE | {"stoch_depth": 0.1}, ["ours", "ours_comparable", "reference"]),
        ("step", COMPARABLE | {"remat": True}, ["ours", "ours_comparable", "reference"]),
        ("predict", {"stoch_depth": 0.1}, ["ours", "reference"]),
        ("step", {"tile_size": 4}, ["ours"]),
        ("step", COMPARABLE | {"tile_size": 8}, ["ours", "reference"]),
        ("step", {"family": "vit"}, ["ours"]),
    ],
)
def test_what_is_compared_is_the_same_work(tiny_config, kind, changes, who):
    tiny_config.model.update(changes)
    assert contestant_names(kind, tiny_config) == who


def test_the_reference_and_what_is_compared_with_it_drop_nothing(tiny_config):
    models = {name: contestant_program(name, tiny_config).model for name in ("ours", "ours_comparable", "reference")}
    assert models["ours"].stoch_depth == models["ours"].dropout == 0.1
    assert models["ours_comparable"].stoch_depth == models["ours_comparable"].dropout == 0
    assert isinstance(models["reference"], ReferenceMixer)
    assert tiny_config.model.dropout == 0.1


def test_a_step_goes_on_from_the_state_before_it_and_is_waited_for(tiny_config):
    class Program:
        def compile_step(self, mesh, max_labels):
            return lambda state, batch: (state + 1, seen.append(int(state))), 7.0

        def init_params(self, mesh):
            return jnp.zeros(())

        def init_state(self, mesh, params):
            return params

    seen = []
    contestant = compile_step(Program(), parallel.make_mesh(1), {})
    contestant.run(3)
    contestant.run(1)
    assert seen == [0, 1, 2, 3] and contestant.flops == 7


@pytest.mark.parametrize("name", ["ours", "reference"])
def test_a_random_batch_is_one_that_the_step_takes(tiny_config, name):
    mesh = parallel.make_mesh(1)
    program = contestant_program(name, tiny_config)
    batch = random_batch(program, mesh)
    wanted = program.lower_step(mesh, max_labels=1).args_info[0][1]
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {name: (x.shape, x.dtype) for name, x in wanted.items()}


def test_those_compared_take_turns_and_the_first_does_not_count():
    asked, numbers = [], itertools.count()

    def turn(name, cost):
        def called(count):
            asked.append((name, count))
            return Seconds(clock=count * cost + 1000 * (next(numbers) < 2), cpu=2 * count * cost)

        return called

    seconds = step.take_turns({"ours": turn("ours", 1.0), "other": turn("other", 3.0)}, num_steps=4)
    assert seconds == {"ours": [Seconds(1, 2)] * step.ROUNDS, "other": [Seconds(3, 6)] * step.ROUNDS}
    assert asked[:4] == [("ours", 4), ("other", 4), ("other", 4), ("ours", 4)] and len(asked) == 2 * (step.ROUNDS + 1)
    assert step.ratios(seconds["ours"], seconds["other"]) == {"ours_is_times_as_fast": 3, "by_cpu_time": 3}


def test_mfu_is_of_the_peak_where_that_is_known(monkeypatch):
    monkeypatch.setattr(accelerators, "peak_flops_per_sec", lambda kind: 1e12)
    figures = step.speed(64, [Seconds(2.0, 4.0), Seconds(1.0, 4.0), Seconds(90.0, 4.0)], flops=5e11)
    assert figures == {"images_per_sec": 32, "images_per_cpu_sec": 16, "gflops_per_sec_per_device": 250, "mfu": 0.25}
    monkeypatch.setattr(accelerators, "peak_flops_per_sec", lambda kind: None)
    assert step.speed(64, [Seconds(2.0, 4.0)], flops=5e11)["mfu"] is None
    assert step.speed(64, [Seconds(2.0, 4.0)], flops=None).keys() == {"images_per_sec", "images_per_cpu_sec"}


def test_every_figure_is_in_the_table_and_ours_comparable_is_what_is_compared(tiny_config, monkeypatch):
    def run(seconds):
        return Contestant(lambda count: time.sleep(count * seconds), 1e9, 0.0)

    costs = iter([0.002, 0.001, 0.001])
    monkeypatch.setattr(step, "make_contestant", lambda *_: run(next(costs)))
    monkeypatch.setattr(step, "measure_starts", lambda *_: {"compile_seconds": 3.0, "peak_memory_mib": 700})
    others = {"other": (lambda count: Seconds(8.0 * count, 1e-9), {"peak_memory_mib": 5})}
    benchmark = step.benchmark("step", tiny_config, 1, others)
    figures = benchmark["figures"]
    assert benchmark["load_before"] >= 0 and list(figures) == ["ours", "ours_comparable", "reference", "other"]
    assert 4000 < figures["other"]["ours_is_times_as_fast"] < 8000 and figures["other"]["images_per_sec"] == 2
    assert figures["other"]["peak_memory_mib"] == 5 and "ours_is_times_as_fast" not in figures["ours"]
    assert figures["reference"]["compile_seconds"] == 3
    lines = [line.split() for line in step.format_benchmark(benchmark).splitlines()]
    assert ["ours", "ours_comparable", "reference", "other"] in lines
    assert {name for column in figures.values() for name in column} <= {line[0] for line in lines if line}


def test_a_start_is_measured_in_a_process_of_its_own_and_leaves_its_program_for_the_next(
    tiny_config, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("XLA_FLAGS", "")  # As in production: what compiles in less than 0.1 s is not kept.
    figures = run_in_fresh_process(str(tmp_path / "cache"), step.start, "predict", "ours", tiny_config, time.time())
    assert 0 < figures["compile_seconds"] < figures["start_seconds"] and figures["peak_memory_mib"] > 100
    assert any("predict" in file.name for file in (tmp_path / "cache/mixer_jax/compiled").rglob("*"))
    assert not (tmp_path / "mine").exists()
