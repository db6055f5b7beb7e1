"""The 5-shot accuracies of Figures 2 (right) and 4: their pre-trainings and their steps. Nothing is trained here."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from reproduction.test_plan import days, setup_of
from reproduction.test_standing import make_run

from mixer_jax.app import read_config
from mixer_jax.errors import UserError
from mixer_jax.planning.estimate import total_steps
from mixer_jax.reproduction.few_shot import few_shot_cell
from mixer_jax.reproduction.fine_tuning import pretraining_job
from mixer_jax.reproduction.paper.exhibits import EXHIBITS
from mixer_jax.reproduction.setup import RELEASED
from mixer_jax.reproduction.show import figures_of
from mixer_jax.reproduction.standing import NOT_RELEASED
from mixer_jax.reproduction.status import DEVIATES, DIFFERS, NO_DATA, NO_RECIPE, REPRODUCED, STARTED
from mixer_jax.reproduction.working import make_plan, next_jobs
from mixer_jax.sweep.job import config_of
from mixer_jax.validation import validate

FIGURE_2, FIGURE_4 = EXHIBITS["figure2"][1], EXHIBITS["figure4"][0]
SHARES = ("9M", "30M", "91M")
B32 = "configs/pretrain_jft300m.py:B/32"
LAST = 517_822  # of 7 epochs of 303 million images


def write(run: Path, figures: Mapping[int, Mapping[str, float | None]]) -> None:
    """Write the metrics of a run: {step: {figure: value}}."""
    (run / "metrics.jsonl").write_text("".join(json.dumps({"step": step} | line) + "\n" for step, line in figures.items()))


def both(few: float | None, held_out: float | None) -> dict[str, float | None]:
    return {"fewshot/top1_5shot": few, "held_out/top1": held_out, "held_out/loss": 7.0}


def make_share(workdir: Path, figures: Mapping[int, Mapping[str, float | None]], *flags: str, step: int = 517_083) -> Path:
    """Write what B/32 on 3 % of JFT-300M leaves."""
    run = make_run(workdir, "jft300m-B32,share=3/pretraining", f"{B32},share=3", {}, *flags, step=step)
    write(run, figures)
    return run


def cell_of(workdir: Path, exhibit: str, row: str, column: str, **options) -> dict:
    part = figures_of(exhibit, row, [column], setup_of(workdir.parent, **options))["parts"][-1]
    (cell,) = (cell for found in part["rows"] for cell in found["cells"])
    return cell


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    (tmp_path / "paper").mkdir()
    return tmp_path / "paper"


@pytest.mark.parametrize(("family", "count"), [("Mixer", 9 + 1), ("ViT", 9 + 1), ("BiT", 3)])
def test_figure_2_has_as_many_pre_trainings_of_its_own_as_were_audited(tmp_path: Path, with_data, family: str, count: int):
    """The audit: three Mixers on three shares, and L/16 on JFT-3B. Those on all of JFT-300M are those of Table 3."""
    setup = setup_of(tmp_path)
    columns = [column.name for column in FIGURE_2.columns]
    jobs = next_jobs(make_plan("figure2", f"{family}-*", columns, setup))
    of_others = next_jobs(make_plan("figure3", f"{family}-*", ["imagenet"], setup))
    own = [job for job in jobs if "," in job.config]
    assert len({job.workdir for job in own}) == count
    assert {job.workdir for job in jobs} - {job.workdir for job in own} <= {job.workdir for job in of_others}


def test_every_pre_training_of_figure_2_has_the_steps_of_7_epochs_and_holds_out_other_images():
    for row in FIGURE_2.rows:
        for column in row.cells:
            cell = few_shot_cell("figure2", row, column)
            config = read_config(cell.recipe.config, [])
            validate(config)
            assert total_steps(config) == pytest.approx(LAST, rel=0.015)
            assert cell.is_best == (column in SHARES) == ("held_out" in config.evals)
            if cell.is_best:
                percent, epochs = {"9M": (3, 233), "30M": (10, 70), "91M": (30, 23)}[column]
                assert (config.data.split, config.total.epochs) == (f"train[:{percent}%]", epochs)
                held_out = config.evals.held_out
                assert (held_out.data.source, held_out.data.split) == (config.data.source, "train[99%:]")
                assert held_out.every == config.evals.fewshot.every and config.checkpoint.best == "evals.held_out.top1"


def test_budgets_count_the_pre_training_of_a_cell_and_one_for_a_whole_row_of_figure_4(tmp_path: Path, with_data):
    shares = make_plan("figure2", "Mixer-B/32", SHARES, setup_of(tmp_path))
    assert days(shares) == pytest.approx(3 * 20.3, abs=0.1)
    within = make_plan("figure2", "Mixer-B/32", SHARES, setup_of(tmp_path), 50)
    assert len(within.tasks) == 2 and "It costs 20.3 core-days more, and the budget is 50." in within.left[0][1]
    whole = make_plan("figure4", "Mixer-B/16: original", [], setup_of(tmp_path))
    (job,) = next_jobs(whole)
    assert len(whole.tasks) == 7 and days(whole) == pytest.approx(43.6, abs=0.1)
    assert job.workdir.endswith("jft300m-B16/pretraining")


def test_without_data_or_with_released_weights_alone_nothing_is_run(tmp_path: Path):
    plan = make_plan("figure2", "Mixer-L/16", ["30M", "3B"], setup_of(tmp_path))
    assert not plan.tasks and ["jft300m" in plan.left[0][1], "jft3b" in plan.left[1][1]] == [True, True]
    plan = make_plan("figure2", "Mixer-L/16", ["30M"], setup_of(tmp_path, start=RELEASED))
    assert not plan.tasks and plan.left[0][1] == NOT_RELEASED
    (cell,) = figures_of("figure2", "Mixer-L/16", ["30M"], setup_of(tmp_path, start=RELEASED))["parts"][0]["rows"][0]["cells"]
    assert (cell["status"], cell["reasons"]) == (NO_RECIPE, [NOT_RELEASED])


def test_the_figure_on_a_share_is_that_of_the_best_step_on_held_out_images(workdir: Path):
    figures = {
        25_000: both(0.300, 0.30), 50_000: both(0.354, 0.41), 75_000: both(0.36, 0.41), 500_000: {"held_out/top1": 0.9},
        517_083: both(0.40, 0.20),
    }  # fmt: skip
    run = make_share(workdir, figures)
    cell = cell_of(workdir, "figure2", "Mixer-B/32", "9M")
    assert cell["ours"] == pytest.approx(35.4) and cell["status"] == REPRODUCED and cell["core_days_left"] == 0
    assert cell["reasons"] == ["Step 50000 is the best one on the images that are held out."]
    (evidence,) = cell["runs"]
    assert (evidence["run"], evidence["git_commit"], evidence["params_sha256"]) == (str(run), "0123abcd", "")


def test_the_figure_on_all_images_is_that_of_the_last_step_with_the_digest_of_its_parameters(workdir: Path):
    run = make_run(workdir, "jft300m-B32/pretraining", B32, {}, step=LAST)
    write(run, {25_000: both(0.6, 0.9), LAST: both(0.5, 0.1)})
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"params_sha256": "ab" * 32}))
    cell = cell_of(workdir, "figure2", "Mixer-B/32", "300M")
    assert (cell["ours"], cell["status"], cell["num_runs"]) == (50, DIFFERS, 1)
    assert cell["runs"][0]["params_sha256"] == "ab" * 32


@pytest.mark.parametrize(
    ("figures", "step", "reason"),
    [
        ({25_000: both(0.3, 0.4)}, 25_000, "has not ended"),
        ({25_000: {"held_out/top1": 0.4}, 517_083: {"fewshot/top1_5shot": 0.3}}, 517_083, "no step with both"),
        ({25_000: both(None, 0.4), 517_083: both(0.3, None)}, 517_083, "no step with both"),
    ],
)
def test_a_share_without_a_best_step_has_no_figure(workdir: Path, figures, step: int, reason: str):
    make_share(workdir, figures, step=step)
    cell = cell_of(workdir, "figure2", "Mixer-B/32", "9M")
    assert cell["ours"] is None and cell["status"] == STARTED and reason in cell["reasons"][0]


def test_a_run_that_goes_on_fills_the_cells_of_figure_4_that_it_has_reached(workdir: Path):
    run = make_run(workdir, "jft300m-B16/pretraining", "configs/pretrain_jft300m.py:B/16", {}, step=150_000)
    lines = [{"step": step, "fewshot/top1_5shot": value} for step, value in ((25_000, 0.1), (25_000, 0.345), (100_000, 0.4372))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 1')
    columns = [column.name for column in FIGURE_4.columns]
    (part,) = figures_of("figure4", "Mixer-B/16: original", columns, setup_of(workdir.parent))["parts"]
    cells = part["rows"][0]["cells"]
    assert [cell["ours"] for cell in cells] == [pytest.approx(34.5), pytest.approx(43.72), *[None] * 5], "the last line counts"
    assert [cell["status"] for cell in cells] == [REPRODUCED] * 2 + [STARTED] * 5
    assert "has no fewshot/top1_5shot at step 200000" in cells[2]["reasons"][0] and "has not ended" in cells[6]["reasons"][0]
    assert cells[6]["core_days_left"] == pytest.approx(43.6, abs=0.1)


def test_the_last_column_of_figure_4_is_the_last_step(workdir: Path):
    run = make_run(workdir, "jft300m-B16/pretraining", "configs/pretrain_jft300m.py:B/16", {}, step=LAST)
    write(run, {LAST: {"fewshot/top1_5shot": 0.6}})
    cell = cell_of(workdir, "figure4", "Mixer-B/16: original", "518k")
    assert (cell["ours"], cell["status"], cell["core_days_left"]) == (60, DIFFERS, 0)
    assert cell["reasons"] == [f"The last step is {LAST}."]


def test_the_few_shot_protocol_of_2021_has_the_figure_of_its_own_name_and_deviates(workdir: Path):
    config, flag = "configs/pretrain_jft300m.py:B/16", "evals.fewshot.l2_choice=best_on_test"
    run = make_run(workdir, "jft300m-B16/pretraining", config, {}, flag, step=LAST)
    write(run, {25_000: {"fewshot/top1_5shot": 0.2}, LAST: {"fewshot/top1_5shot_best_on_test": 0.615}})
    early, last = (cell_of(workdir, "figure4", "Mixer-B/16: original", column) for column in ("25k", "518k"))
    assert early["ours"] is None and "has no fewshot/top1_5shot_best_on_test at step 25000" in early["reasons"][0]
    assert last["ours"] == pytest.approx(61.5) and last["status"] == DEVIATES
    assert last["deviations"] == ["evaluation: l2_choice='best_on_test' instead of 'fixed'."]


def test_what_differs_from_the_recipe_is_a_deviation(workdir: Path):
    flags = (
        "model.dtype=float32", "data.split=train[:4%]", "evals.held_out.data.split=train[98%:]", "evals.fewshot.seeds=(7,)",
        "evals.fewshot.every.steps=10000",
    )  # fmt: skip
    last = total_steps(read_config(f"{B32},share=3", ["--config.data.split=train[:4%]"]))
    make_share(workdir, {last: both(0.354, 0.4)}, *flags, step=last)
    cell = cell_of(workdir, "figure2", "Mixer-B/32", "9M")
    assert cell["status"] == DEVIATES and sorted(cell["deviations"]) == [
        "evaluation: data.split='train[98%:]' instead of 'train[99%:]'.",
        "evaluation: seeds=(7,) instead of (0, 1, 2).",
        "pre-training: data.split='train[:4%]' instead of 'train[:3%]'.",
        "pre-training: model.dtype='float32' instead of 'bfloat16'.",
    ]


def test_data_that_stand_in_are_a_deviation_and_get_the_splits_of_the_file(workdir: Path):
    file = workdir.parent / "locations.toml"
    file.write_text('["tfds:jft300m"]\nsource = "tfds:other"\nsplits = {train = "whole", "train[99%:]" = "rest"}\n')
    setup = setup_of(workdir.parent, data_locations=str(file))
    cell = few_shot_cell("figure2", FIGURE_2.rows[0], "9M")
    config = config_of(pretraining_job(cell.recipe, setup))
    assert (config.data.source, config.data.split) == ("tfds:other", "whole[:3%]")
    assert (config.evals.held_out.data.source, config.evals.held_out.data.split) == ("tfds:other", "rest")


def test_damaged_metrics_are_one_message(workdir: Path):
    run = make_share(workdir, {})
    (run / "metrics.jsonl").write_text('{"step": 517083, "fewshot/top1_5shot": "high", "held_out/top1": 0.5}\n')
    with pytest.raises(UserError, match=r"share=3/pretraining/metrics\.jsonl is damaged"):
        cell_of(workdir, "figure2", "Mixer-B/32", "9M")


def test_jft_3b_is_not_public_either(workdir: Path):
    cell = cell_of(workdir, "figure2", "Mixer-L/16", "3B")
    assert cell["status"] == NO_DATA and "JFT-3B is internal" in cell["reasons"][0]
    assert "pretrain_jft300m.py:L/16,data=jft3b" in cell["commands"][0]
