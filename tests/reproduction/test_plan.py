"""Which runs of an exhibit are made: those whose data are here, within the budget, each once. Nothing is trained here."""

from pathlib import Path

import pytest

from mixer_jax.reproduction import costs, working
from mixer_jax.reproduction.setup import RELEASED, SCRATCH, Setup
from mixer_jax.reproduction.working import make_plan, next_jobs

B16 = "ImageNet-21k: Mixer-B/16*"


def setup_of(tmp_path: Path, **options) -> Setup:
    return Setup(str(tmp_path / "paper"), True, **options)


def days(plan: working.Plan) -> float:
    """The core-days of all tasks, each folder once."""
    return sum({folder: cost for task in plan.tasks for folder, cost in task.core_days.items()}.values())


def test_a_cell_without_data_is_left_out_with_the_message_of_its_source(tmp_path: Path):
    plan = make_plan("table3", B16, ["imagenet"], setup_of(tmp_path))
    ((label, reason),) = plan.left
    assert not plan.tasks and label == "ImageNet-21k: Mixer-B/16, 224 pixels, 300 epochs, column imagenet"
    assert "imagenet2012 is not prepared" in reason


def test_a_cell_of_which_no_images_can_be_held_out_is_left_out(tmp_path: Path, with_data):
    locations = tmp_path / "locations.toml"
    locations.write_text('["tfds:imagenet2012"]\nsource = "folder:/data/imagenet"\n')
    plan = make_plan("table3", B16, ["imagenet", "avg5"], setup_of(tmp_path, data_locations=str(locations)))
    assert not plan.tasks and len(plan.left) == 2
    assert all("folder:/data/imagenet cannot give train[:99%]" in reason for _, reason in plan.left)


def test_runs_that_cells_share_are_made_and_paid_once(tmp_path: Path, with_data):
    alone = make_plan("table3", B16, ["imagenet"], setup_of(tmp_path))
    both = make_plan("table3", B16, ["avg5"], setup_of(tmp_path))
    together = make_plan("table3", B16, ["imagenet", "real", "avg5"], setup_of(tmp_path))
    assert 0 < days(alone) < days(both) == pytest.approx(days(together)) == pytest.approx(3.83, abs=0.01)
    assert [len(next_jobs(plan)) for plan in (alone, both, together)] == [4, 20, 20]


def test_what_needs_a_pre_training_starts_with_it(tmp_path: Path, with_data):
    released, scratch = (make_plan("table3", B16, ["imagenet"], setup_of(tmp_path, start=start)) for start in (RELEASED, SCRATCH))
    (job,) = next_jobs(scratch)
    assert job.workdir.endswith("imagenet21k-B16/pretraining") and job.config == "configs/pretrain_imagenet21k.py:B/16"
    assert days(scratch) - days(released) == pytest.approx(88.2, abs=0.1)
    assert {f"--config.init_from={job.workdir}" in sweep.flags for task in scratch.tasks for sweep in task.sweeps} == {True}


@pytest.mark.parametrize("budget", [0.1, 1.0, 6.0, 100.0])
def test_the_cheapest_cells_fit_into_the_budget_and_the_others_are_named(tmp_path: Path, with_data, budget: float):
    everything = make_plan("table3", "Mixer-*", ["imagenet"], setup_of(tmp_path))
    plan = make_plan("table3", "Mixer-*", ["imagenet"], setup_of(tmp_path), budget)
    costs = [sum(task.core_days.values()) for task in everything.tasks]
    assert days(plan) <= budget and costs == sorted(costs) and len(plan.tasks) + len(plan.left) == len(everything.tasks) == 14
    assert [task.label for task in plan.tasks] == [task.label for task in everything.tasks[: len(plan.tasks)]]
    assert all(reason.endswith(f"and the budget is {budget:g}.") for _, reason in plan.left)


def test_a_cost_that_is_not_known_fits_into_no_budget(tmp_path: Path, with_data, monkeypatch):
    monkeypatch.setattr(costs, "recorded_fine_tuning", lambda model, pixels: None)
    plan = make_plan("figure2", "BiT-R152x4*", ["imagenet"], setup_of(tmp_path), 1e9)
    assert not plan.tasks and {reason for _, reason in plan.left} == {"Its cost is not known, and the budget is 1e+09."}
    assert len(make_plan("figure2", "BiT-R152x4*", ["imagenet"], setup_of(tmp_path)).tasks) == 2
