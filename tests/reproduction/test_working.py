"""The runs of tables and figures are made, through the real expansion, on miniatures of their data with tiny models."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from programs import QUICKLY_COMPILED
from reproduction.miniatures import make_all

import train
from mixer_jax.endings import DONE
from mixer_jax.models import resnet
from mixer_jax.reproduction.few_shot import PERMUTATIONS
from mixer_jax.reproduction.recipes import NO_RECIPE
from mixer_jax.reproduction.runs import NOT_CHOSEN
from mixer_jax.reproduction.setup import SCRATCH, Setup
from mixer_jax.reproduction.show import figures_of
from mixer_jax.reproduction.standing import VTAB_OF_BASELINES
from mixer_jax.reproduction.status import DEVIATES
from mixer_jax.reproduction.working import make_plan, work
from mixer_jax.storage import Folder, read_json
from mixer_jax.sweep import job as jobs
from mixer_jax.sweep import stages
from mixer_jax.sweep.job import Job, config_of, state_of

pytestmark = pytest.mark.slow
TINY = (
    "batch_size=8", "total.steps=1", "total.epochs=0", "schedule.warmup.steps=0", "image_size=32", "evals.fewshot=None",
    "loader.workers=1", "loader.processes=False",
)  # fmt: skip
OF_FAMILY = {
    "Mixer": ("variant=S/32", "tile_size=32", "num_blocks=1", "hidden_dim=8", "channels_mlp_dim=8", "tokens_mlp_dim=4"),
    "ViT": ("variant=B/32", "num_blocks=1", "hidden_dim=8", "channels_mlp_dim=8", "num_heads=2", "pre_logits_dim=8"),
    "BiT": ("variant=R50x1", "hidden_dim=32"),
}
RATES, SEEDS = 4, 3  # of a fine-tuning; VTAB has one rate less


@pytest.fixture(scope="session")
def locations(tmp_path_factory) -> Path:
    return make_all(tmp_path_factory.mktemp("miniatures"))


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory) -> Iterator[None]:
    """Keep compiled programs: the tiny models of all rows are the same."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def setup(locations: Path, tmp_path: Path) -> Setup:
    return Setup(str(tmp_path / "paper"), True, SCRATCH, data_locations=str(locations), flags=tiny("Mixer"))


def tiny(family: str) -> tuple[str, ...]:
    return tuple(f"--config.{flag}" for flag in (*TINY, *(f"model.{option}" for option in OF_FAMILY[family])))


class Here:
    """Runs jobs in this process, and remembers their folders."""

    def __init__(self):
        self.made: list[str] = []

    def __call__(self, job: Job) -> None:
        assert train.train(config_of(job), job.workdir) == DONE
        self.made.append(job.workdir)


def results_of(setup: Setup) -> dict[Path, int]:
    names = Folder(Path(setup.workdir)).names()
    files = [Path(setup.workdir, name) for name in names if name.endswith("/results.json")]
    return {file: file.stat().st_mtime_ns for file in files}


def cells(exhibit: str, rows: str, column: str, setup: Setup) -> list[dict]:
    parts = figures_of(exhibit, rows, [column], setup)["parts"]
    return [cell for part in parts for row in part["rows"] for cell in row["cells"]]


def test_a_cell_that_is_killed_halfway_goes_on_and_repeats_nothing(setup: Setup):
    chosen = ["table3", "--rows=ImageNet: Mixer-B/16*", "--columns=imagenet,real", "--start=scratch"]
    where = [f"--workdir={setup.workdir}", f"--data-locations={setup.data_locations}", *setup.flags]
    command = [sys.executable, "-m", "mixer_jax", "reproduce", *chosen, *where, "--run"]
    environment = os.environ | {"XLA_FLAGS": QUICKLY_COMPILED}
    killed = subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    while len(results_of(setup)) < 4:  # The pre-training and three of four learning rates.
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()[0]
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = {file: stamp for file, stamp in results_of(setup).items() if is_done(file.parent)}
    assert len(before) >= 3
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == DONE, again.stderr
    after = results_of(setup)
    assert len(after) == 1 + RATES + SEEDS and before.items() <= after.items()
    for column, evaluator in (("imagenet", "test"), ("real", "real")):
        (cell,) = cells("table3", "ImageNet: Mixer-B/16*", column, setup)
        runs = [file for file in after if "/final/" in str(file)]
        top1 = [read_json(file)["evals"][evaluator]["top1"] for file in runs]
        assert cell["status"] == DEVIATES and cell["ours"] == pytest.approx(100 * sum(top1) / len(top1)) and len(top1) == SEEDS
        assert NOT_CHOSEN not in cell["deviations"] and "seeds" not in " ".join(cell["deviations"])
        assert "fine-tuning: batch_size=8 instead of 512." in cell["deviations"]
    assert not make_plan("table3", "ImageNet: Mixer-B/16*", ["imagenet", "real"], setup).tasks
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == DONE and results_of(setup) == after and "deviates" in done.stdout


def is_done(run: Path) -> bool:
    return read_json(run / "results.json").get("step") == 1


@pytest.mark.parametrize(
    ("exhibit", "row", "column", "count"),
    [
        ("table3", "ImageNet: Mixer-B/16*", "avg5", 5 * (RATES + SEEDS)),
        ("table2", "Mixer-L/16", "vtab", 19 * (RATES - 1 + SEEDS)),
    ],
)
def test_the_whole_protocol_of_a_mean_is_run(setup: Setup, exhibit: str, row: str, column: str, count: int):
    runs = Here()
    work(make_plan(exhibit, row, [column], setup), runs)
    assert len(runs.made) == len(set(runs.made)) == 1 + count
    (cell,) = cells(exhibit, row, column, setup)
    assert cell["status"] == DEVIATES and cell["num_runs"] == count and cell["core_days_left"] == 0
    assert NOT_CHOSEN not in cell["deviations"]
    work(make_plan(exhibit, row, [column], setup), runs)
    assert len(runs.made) == 1 + count, "nothing is repeated"


def with_five_shots(steps: int) -> tuple[str, ...]:
    """Return the flags of tiny pre-trainings that evaluate at every other step."""
    tiny_ones = [flag for flag in tiny("Mixer") if "evals.fewshot" not in flag and "total.steps" not in flag]
    more = (
        f"total.steps={steps}", "checkpoint.every.steps=2", "evals.held_out.every.steps=2", "evals.fewshot.every.steps=2",
        "evals.fewshot.shots=(5,)", "evals.fewshot.seeds=(0,)", "evals.fewshot.test.split=few_test",
    )  # fmt: skip
    return (*tiny_ones, *(f"--config.{flag}" for flag in more))


def test_figure_2_is_run_on_shares_of_the_data_and_goes_on_after_a_kill(setup: Setup):
    """Two shares. The run of the second one is killed after its first evaluation."""
    setup = dataclasses.replace(setup, start="", flags=with_five_shots(12))
    first, second = (Path(setup.workdir, f"jft300m-B32,{share}/pretraining") for share in ("share=3", "share=10"))
    chosen = ["figure2", "--rows=Mixer-B/32", "--columns=9M,30M", f"--workdir={setup.workdir}"]
    command = [sys.executable, "-m", "mixer_jax", "reproduce", *chosen, f"--data-locations={setup.data_locations}", *setup.flags]
    environment = os.environ | {"XLA_FLAGS": QUICKLY_COMPILED}
    killed = subprocess.Popen(
        [*command, "--run"], env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 240
    while not (second / "best.json").exists():
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()[0]
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    before = (first / "results.json").stat().st_mtime_ns
    again = subprocess.run([*command, "--run"], env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == DONE, again.stderr
    assert (first / "results.json").stat().st_mtime_ns == before, "a run that is done is not repeated"
    starts = read_json(second / "run.json")["starts"]
    assert len(starts) == 2 and starts[1]["first_step"] > 0, "it goes on where it was"
    for run, column in ((first, "9M"), (second, "30M")):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        evaluated = {line["step"]: line for line in lines if "held_out/top1" in line}
        assert sorted(evaluated) == [2, 4, 6, 8, 10, 12]
        best = max(evaluated, key=lambda step: (evaluated[step]["held_out/top1"], -step))
        (cell,) = cells("figure2", "Mixer-B/32", column, setup)
        assert cell["ours"] == pytest.approx(100 * evaluated[best]["fewshot/top1_5shot"]) and cell["status"] == DEVIATES
        assert read_json(run / "best.json")["step"] == best
        assert cell["reasons"] == [f"Step {best} is the best one on the images that are held out."]
        assert "tfds:jft300m is replaced by tfds:small_jft300m." in cell["deviations"]
    assert not make_plan("figure2", "Mixer-B/32", ["9M", "30M"], setup).tasks


@pytest.mark.parametrize("row", ["patches and pixels permuted", "all pixels permuted"])
def test_a_permuted_row_of_figure_4_is_run_once_and_has_the_figure_of_its_last_step(setup: Setup, row: str):
    setup = dataclasses.replace(setup, flags=with_five_shots(2))
    runs = Here()
    for _ in range(2):
        work(make_plan("figure4", f"Mixer-B/16: {row}", [], setup), runs)
    (run,) = runs.made
    assert run.endswith(f"jft300m-B16,permutation={PERMUTATIONS[row]}/pretraining")
    (early,), (last,) = (cells("figure4", f"Mixer-B/16: {row}", column, setup) for column in ("25k", "518k"))
    top1 = read_json(Path(run, "results.json"))["evals"]["fewshot"]["top1_5shot"]
    assert last["ours"] == pytest.approx(100 * top1) and last["status"] == DEVIATES
    assert not [text for text in last["deviations"] if "permutation" in text]
    assert early["ours"] is None and "has no fewshot/top1_5shot at step 25000" in early["reasons"][0]


@pytest.mark.parametrize("family", OF_FAMILY)
def test_a_run_of_every_cell_is_made(setup: Setup, family: str, monkeypatch):
    """Of each cell, the pre-training that it needs and, unless that has its figure, one fine-tuning after that."""
    monkeypatch.setitem(resnet.UNITS, "R50", (1, 1, 1, 1))  # The fewest of a ResNet. The others have one block by an option.
    setup = dataclasses.replace(setup, flags=tiny(family))
    runs = Here()
    for exhibit in ("table2", "table3", "figure2", "figure3", *(["figure4"] if family in ("Mixer", "BiT") else [])):
        plan = make_plan(exhibit, f"*{family}-*", [], setup)
        assert plan.tasks and {reason for _, reason in plan.left} <= {VTAB_OF_BASELINES, *NO_RECIPE.values()}
        for task in plan.tasks:
            if task.pretraining and state_of(task.pretraining).word != jobs.DONE:
                runs(task.pretraining)
            for sweep in task.sweeps[-1:]:
                job, state = stages.progress_of(sweep).jobs()[0]
                if state.word != jobs.DONE:
                    runs(job)
    assert len(runs.made) == len(set(runs.made))
    of_figures = {"Mixer": 10 + 2, "ViT": 10, "BiT": 3 + 2}[family]  # 2 (right) and 4
    num_pretrainings = len([run for run in runs.made if run.endswith("/pretraining")])
    assert num_pretrainings == {"Mixer": 12, "ViT": 11, "BiT": 6}[family] + of_figures
