"""A sweep is worked through: each run once, the test split only after the choice; what is there is never repeated."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep.made_runs import leave

from mixer_jax.__main__ import main, make_parser
from mixer_jax.app import parse_tool
from mixer_jax.endings import DONE as ENDED
from mixer_jax.endings import STOPPED, TO_MEND, TRY_AGAIN
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.launch.request import Request, check
from mixer_jax.storage import read_json
from mixer_jax.sweep import stages
from mixer_jax.sweep.grid import Sweep, choosing_jobs
from mixer_jax.sweep.job import DONE, NOT_STARTED, Job, config_of, state_of
from mixer_jax.sweep.text import figures_of, format_sweep
from mixer_jax.sweep.written import write

TOP1 = {0.01: 0.4, 0.03: 0.7, 0.06: 0.6}  # on the images that are held out, by learning rate


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    rates = {"optimizer.learning_rate": tuple(map(str, TOP1))}
    test = [f"--config.evals.test.data.{flag}" for flag in ("source=glyphs", "split=train", "num_examples=64")]
    flags = ("--config.data.source=glyphs", "--config.num_classes=53", "--config.evals.fewshot=None", *test)
    return Sweep("tests/tiny_config.py", flags, rates, (0, 1, 2), "dev", "top1", str(tmp_path), ("train", "validation"))


class Runs:
    """Takes the place of train.py: a run leaves its figures. After `budget` runs the next one fails."""

    def __init__(self, budget: int = 100):
        self.made: list[str] = []
        self._budget = budget

    def __call__(self, job: Job) -> None:
        if len(self.made) == self._budget:
            raise EnvironmentFault("killed")
        config = config_of(job)
        figure = TOP1[config.optimizer.learning_rate] if "dev" in config.evals else 0.5 + 0.1 * config.seed
        leave(job, {name: {"top1": figure, "loss": 1.0} for name in config.evals})
        self.made.append(job.workdir.split("/optimizer.")[-1])


def test_every_setting_is_tried_and_the_best_one_is_trained_with_each_seed(sweep: Sweep):
    runs = Runs()
    progress = stages.run(sweep, runs)
    choosing = [f"learning_rate={rate}/seed0" for rate in TOP1]
    assert runs.made == [*choosing, *(f"learning_rate=0.03/seed{seed}" for seed in range(3))]
    assert dict(progress.best) == {"optimizer.learning_rate": "0.03"}
    assert all(list(config_of(job).evals) == ["dev"] for pairs in progress.choosing.values() for job, _ in pairs)
    assert all(list(config_of(job).evals) == ["test"] for job, _ in progress.final)
    assert stages.run(sweep, runs) == progress and len(runs.made) == 6, "nothing is repeated"


def test_one_setting_needs_no_choice(sweep: Sweep):
    runs = Runs()
    stages.run(sweep._replace(vary={"optimizer.learning_rate": ("0.03",)}), runs)
    assert runs.made == [f"learning_rate=0.03/seed{seed}" for seed in range(3)]


@pytest.mark.parametrize("budget", range(6))
def test_a_sweep_that_is_cut_short_goes_on_where_it_was(sweep: Sweep, budget: int):
    first, second = Runs(budget), Runs()
    with pytest.raises(EnvironmentFault):
        stages.run(sweep, first)
    assert all(state.word in (DONE, NOT_STARTED) for _, state in stages.progress_of(sweep).jobs())
    stages.run(sweep, second)
    whole = Runs()
    stages.run(sweep._replace(workdir=f"{sweep.workdir}/whole"), whole)
    assert first.made + second.made == whole.made


def test_the_folder_of_another_run_is_left_alone(sweep: Sweep):
    job = next(iter(stages.progress_of(sweep).choosing.values()))[0][0]
    leave(job._replace(flags=(*job.flags, "--config.batch_size=8")), {"dev": {"top1": 1.0}})
    runs = Runs()
    with pytest.raises(UserError, match=r"batch_size=8 instead of 16.*move it away"):
        stages.run(sweep, runs)
    assert not runs.made


def test_the_table_has_mean_and_sample_deviation(sweep: Sweep):
    stages.run(sweep, Runs())
    figures = figures_of(sweep, stages.progress_of(sweep))
    final = figures["final"]["evals"]["test"]["top1"]
    assert final["figures"] == pytest.approx([0.5, 0.6, 0.7])
    assert (final["mean"], final["sd"]) == pytest.approx((0.6, 0.1))
    assert [setting["chosen"] for setting in figures["settings"]] == [False, True, False]
    text = format_sweep(figures)
    assert "test top1   0.6  0.1" in text and "chosen" in text and "3 of 3 runs are done" in text


def test_a_figure_that_an_evaluator_lacks_is_named(sweep: Sweep):
    with pytest.raises(UserError, match="no figure 'top9': it has top1, loss"):
        stages.run(sweep._replace(metric="top9"), Runs())


def test_the_runs_that_can_start_now_are_written_for_other_programs(sweep: Sweep, tmp_path: Path):
    jobs = [job for job, _ in stages.progress_of(sweep).jobs()]
    lines = [json.loads(line) for line in write(jobs, "json").splitlines()]
    assert [line["command"] for line in lines] == [shlex.split(job.command) for job in jobs] and len(lines) == 3
    script = tmp_path / "array.sh"
    script.write_text(write(jobs, "slurm"))
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name, code in (
        ("srun", 'exec "$@"'),
        ("python", 'for word in "$@"; do echo "$word"; done; exit 75'),
        ("scontrol", 'echo "$@"'),
    ):
        (fakes / name).write_text(f"#!/bin/bash\n{code}\n")
        (fakes / name).chmod(0o755)
    variables = {"PATH": f"{fakes}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "7"}
    task = subprocess.run(["bash", script], env=variables, capture_output=True, text=True, check=False)
    supervised = ["-m", "mixer_jax", "supervise", "--grace=60", "--", *jobs[2].words]
    assert task.stdout.splitlines() == [*supervised, "requeue 7_2"] and task.returncode == STOPPED
    assert "#SBATCH --array=0-2\n" in script.read_text()
    assert write([], "slurm") == write([], "json") == ""


def test_what_runs_elsewhere_or_is_done_cannot_start_now(sweep: Sweep):
    first, second, third = (job for job, _ in stages.progress_of(sweep).jobs())
    (leave(first) / "hosts").mkdir()
    beat = {"host": 0, "machine": "a", "phase": "training", "step": 3, "step_time": 1.0, "time": time.time()}
    Path(first.workdir, "hosts/0.json").write_text(json.dumps(beat))
    leave(second, {"dev": {"top1": 0.5}})
    assert stages.progress_of(sweep).startable() == [third]


def test_launches_have_the_folders_and_options_of_the_runs(sweep: Sweep, tmp_path: Path):
    with pytest.raises(UserError, match="a folder in a bucket"):
        write([job for job, _ in stages.progress_of(sweep).jobs()], "launch")
    jobs = [job for jobs in choosing_jobs(sweep._replace(workdir="gs://bucket/sweep")).values() for job in jobs]
    (tmp_path / "python").write_text('#!/bin/bash\nprintf "%s\\n" "$@" END\n')
    (tmp_path / "python").chmod(0o755)
    where = "LAUNCH=(--type=v3-32 --zone=europe-west4-a --project=p --bucket=gs://bucket --max-hours=8)\n"
    script, variables = where + write(jobs, "launch"), {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    said = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, check=True).stdout
    launched = [text.strip().splitlines() for text in said.split("END\n") if text]
    assert len(launched) == len(jobs) == 3
    requests = []
    for words, job in zip(launched, jobs, strict=True):
        assert words[:4] == ["-m", "mixer_jax", "launch", "tpu"]
        given = vars(parse_tool(make_parser(["launch"]), words[2:]))
        requests.append(
            Request(**{name: given[name] for name in Request._fields if name in given} | {"env": {}, "root": given["root"]})
        )
        assert check(requests[-1]).workdir == job.workdir
        assert requests[-1].words == [f"--config={job.config}", *job.flags]
    assert len({request.name for request in requests}) == 3
    unset = subprocess.run(["bash", "-c", write(jobs, "launch")], env=variables, capture_output=True, text=True, check=False)
    assert unset.returncode and "LAUNCH=(--type" in unset.stderr and not unset.stdout


@pytest.mark.parametrize(
    ("code", "error"), [(TO_MEND, UserError), (TRY_AGAIN, EnvironmentFault), (STOPPED, SystemExit), (ENDED, EnvironmentFault)]
)
def test_the_end_of_a_run_is_that_of_the_sweep_unless_it_is_done(sweep: Sweep, monkeypatch, code: int, error: type):
    monkeypatch.setattr("mixer_jax.supervision.supervise.Supervisor.run", lambda self: code)
    with pytest.raises(error):
        stages.run(sweep)


@pytest.mark.slow
def test_the_command_runs_a_sweep_and_a_second_call_repeats_nothing(sweep: Sweep, monkeypatch, capfd):
    flags = (*sweep.flags, "--config.total.steps=2", "--config.data.num_examples=64")
    sweep = sweep._replace(flags=flags, vary={"optimizer.learning_rate": ("0.01", "0.03")}, seeds=(0, 1))

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mixer_jax", *shlex.split(sweep.command)[3:], *words])
        return main(), capfd.readouterr().out

    code, out = call()
    assert code == ENDED and "2 of 2 runs are done" in out
    before = {file: file.stat().st_mtime_ns for file in Path(sweep.workdir).rglob("results.json")}
    assert len(before) == 4
    assert call()[0] == ENDED
    digests = {file: read_json(file)["params_sha256"] for file in before}
    sweep = sweep._replace(flags=(*sweep.flags, "--config.evals.test.resize_size=10"))
    assert all(state.word != DONE for _, state in stages.progress_of(sweep).jobs()), "the figures are of other crops"
    assert call()[0] == ENDED and len(stages.progress_of(sweep).final) == 2
    assert digests == {file: read_json(file)["params_sha256"] for file in before}, "no run was trained again"
    before = {file: file.stat().st_mtime_ns for file in before}
    assert call()[0] == ENDED
    assert before == {file: file.stat().st_mtime_ns for file in Path(sweep.workdir).rglob("results.json")}
    (job, state), *_ = stages.progress_of(sweep).final
    assert state.word == DONE == state_of(job).word and 0 <= state.evals["test"]["top1"] <= 1


@pytest.mark.slow
def test_a_sweep_in_a_bucket_is_run_and_read_there(sweep: Sweep, cloud):
    flags = (*sweep.flags, "--config.total.steps=2", "--config.data.num_examples=64")
    sweep = sweep._replace(
        flags=flags, vary={"optimizer.learning_rate": ("0.01", "0.03")}, seeds=(0, 1), workdir="gs://bucket/sweep"
    )
    progress = stages.run(sweep)
    assert [state.word for _, state in progress.jobs()] == [DONE] * 4
    written = {key: data for key, data in cloud.objects.items() if key[1].endswith("results.json")}
    assert len(written) == 4 and all(name.startswith("sweep/") for _, name in written)
    assert stages.run(sweep) == progress
    assert written == {key: data for key, data in cloud.objects.items() if key[1].endswith("results.json")}
