"""The benchmark of steps and predictions: who is compared, that it is the same work, whose turn it is, and what is said of it."""

import itertools
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import pytest

from benchmarks.timm_model import require_same_device, settings, timm
from mixer_jax import parallel
from mixer_jax.bench import step
from mixer_jax.bench.alone import alone
from mixer_jax.bench.step import Seconds
from mixer_jax.bench.work import PLAIN, Work, contestants, program_of, random_batch, step_work
from mixer_jax.errors import UserError
from mixer_jax.models.reference import ReferenceMixer


@pytest.mark.parametrize(
    ("kind", "changes", "who"),
    [
        ("step", PLAIN, ["ours", "reference"]),
        ("step", PLAIN | {"stoch_depth": 0.1}, ["ours", "ours_plain", "reference"]),
        ("step", PLAIN | {"remat": True}, ["ours", "ours_plain", "reference"]),
        ("predict", {"stoch_depth": 0.1}, ["ours", "reference"]),
        ("step", {"tile_size": 4}, ["ours"]),
        ("step", PLAIN | {"tile_size": 8}, ["ours", "reference"]),
        ("step", {"family": "vit"}, ["ours"]),
    ],
)
def test_what_is_compared_is_the_same_work(tiny_config, kind, changes, who):
    tiny_config.model.update(changes)
    assert contestants(kind, tiny_config) == who


def test_the_reference_and_what_is_compared_with_it_drop_nothing(tiny_config):
    models = {whose: program_of(whose, tiny_config).model for whose in ("ours", "ours_plain", "reference")}
    assert models["ours"].stoch_depth == models["ours"].dropout == 0.1
    assert models["ours_plain"].stoch_depth == models["ours_plain"].dropout == 0
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
    work = step_work(Program(), parallel.make_mesh(1), {})
    work.run(3)
    work.run(1)
    assert seen == [0, 1, 2, 3] and work.flops == 7


@pytest.mark.parametrize("whose", ["ours", "reference"])
def test_a_random_batch_is_one_that_the_step_takes(tiny_config, whose):
    mesh = parallel.make_mesh(1)
    program = program_of(whose, tiny_config)
    batch = random_batch(program, mesh)
    wanted = program.lower_step(mesh, max_labels=1).args_info[0][1]
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {name: (x.shape, x.dtype) for name, x in wanted.items()}


def test_those_compared_take_turns_and_the_first_does_not_count():
    asked, numbers = [], itertools.count()

    def turn(whose, cost):
        def called(count):
            asked.append((whose, count))
            return Seconds(clock=count * cost + 1000 * (next(numbers) < 2), cpu=2 * count * cost)

        return called

    taken = step.take_turns({"ours": turn("ours", 1.0), "theirs": turn("theirs", 3.0)}, num_steps=4)
    assert taken == {"ours": [Seconds(1, 2)] * step.ROUNDS, "theirs": [Seconds(3, 6)] * step.ROUNDS}
    assert asked[:4] == [("ours", 4), ("theirs", 4), ("theirs", 4), ("ours", 4)] and len(asked) == 2 * (step.ROUNDS + 1)
    assert step.ratios(taken["ours"], taken["theirs"]) == {"ours_is_times_as_fast": 3, "by_cpu_time": 3}


def test_mfu_is_of_the_peak_where_that_is_known(monkeypatch):
    monkeypatch.setattr(parallel, "peak_flops_per_sec", lambda: 1e12)
    figures = step.speed(64, [Seconds(2.0, 4.0), Seconds(1.0, 4.0), Seconds(90.0, 4.0)], flops=5e11)
    assert figures == {"images_per_sec": 32, "images_per_cpu_sec": 16, "gflops_per_sec_per_device": 250, "mfu": 0.25}
    monkeypatch.setattr(parallel, "peak_flops_per_sec", lambda: None)
    assert step.speed(64, [Seconds(2.0, 4.0)], flops=5e11)["mfu"] is None
    assert step.speed(64, [Seconds(2.0, 4.0)], flops=None).keys() == {"images_per_sec", "images_per_cpu_sec"}


PEER = """#!{python}
import json, sys
print(json.dumps({{"device": "cpu"}}), flush=True)
for line in sys.stdin:
    print(json.dumps({{"clock": 8.0 * json.loads(line)["steps"], "cpu": 1e-9}}), flush=True)
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A "Python" whose timm takes eight seconds a step, so it says."""
    file = tmp_path / "python"
    file.write_text(PEER.format(python=sys.executable))
    file.chmod(0o700)
    return str(file)


def test_every_figure_is_in_the_table_and_ours_plain_is_what_is_compared(tiny_config, python, monkeypatch):
    def run(seconds):
        return Work(lambda count: time.sleep(count * seconds), 1e9, 0.0)

    costs = iter([0.002, 0.001, 0.001])
    monkeypatch.setattr(step, "work_of", lambda *_: run(next(costs)))
    monkeypatch.setattr(step, "starts_alone", lambda *_: {"compile_seconds": 3.0, "peak_memory_mib": 700})
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found = step.benchmark("step", tiny_config, 1, python)
    figures = found["figures"]
    assert found["load_before"] >= 0 and list(figures) == ["ours", "ours_plain", "reference", "timm"]
    assert 4000 < figures["timm"]["ours_is_times_as_fast"] < 8000 and figures["timm"]["images_per_sec"] == 2
    assert figures["timm"]["peak_memory_mib"] > 0 and "ours_is_times_as_fast" not in figures["ours"]
    assert figures["reference"]["compile_seconds"] == 3
    lines = [line.split() for line in step.as_text(found).splitlines()]
    assert ["ours", "ours_plain", "reference", "timm"] in lines
    assert {name for column in figures.values() for name in column} <= {line[0] for line in lines if line}
    with pytest.raises(UserError, match="at least 1"):
        step.benchmark("step", tiny_config, 0)


def test_a_start_is_measured_in_a_process_of_its_own_and_leaves_its_program_for_the_next(
    tiny_config, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    tiny_config.model.num_blocks = 1
    figures = alone(str(tmp_path / "cache"), step.start, "predict", "ours", tiny_config, time.time())
    assert 0 < figures["compile_seconds"] < figures["start_seconds"] and figures["peak_memory_mib"] > 100
    assert any("predict" in file.name for file in (tmp_path / "cache/mixer_jax/compiled").rglob("*"))
    assert not (tmp_path / "mine").exists()


def test_what_timm_is_asked_for_is_what_the_config_says(tiny_config):
    asked = settings("step", tiny_config)
    assert (asked["patch_size"], asked["num_blocks"], asked["tokens_mlp_dim"], asked["channels_mlp_dim"]) == (2, 2, 8, 32)
    assert (asked["mixup"], asked["loss"], asked["optimizer"], asked["clip_norm"]) == (0.2, "softmax", "adam", 1.0)


@pytest.mark.parametrize(
    ("family", "python", "message"),
    [
        ("vit", sys.executable, "compares Mixers, and config.model.family is vit"),
        ("mixer", "/no/python", "/no/python cannot be run: No such file.*make test-interop"),
        ("mixer", sys.executable, "does not run timm: ImportError: no PyTorch here.*make test-interop"),
    ],
)
def test_what_is_missing_for_timm_is_one_message(tiny_config, tmp_path: Path, monkeypatch, family, python, message):
    (tmp_path / "torch.py").write_text("raise ImportError('no PyTorch here')")
    monkeypatch.chdir(tmp_path)  # the first place where a Python looks
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    tiny_config.model.family = family
    with pytest.raises(UserError, match=message), timm(python, "step", tiny_config):
        pass


def test_another_device_than_pytorchs_is_refused():
    require_same_device("cpu")
    with pytest.raises(UserError, match=r"JAX computes on cpu and PyTorch on cuda.*CUDA_VISIBLE_DEVICES="):
        require_same_device("cuda")
