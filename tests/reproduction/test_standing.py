"""What stands in the cells: counts and costs of runs, statuses, deviations, and figures of runs that are there."""

import json
import shlex
from pathlib import Path

import pytest

from mixer_jax.app import read_config
from mixer_jax.checkpoints import released
from mixer_jax.errors import UserError
from mixer_jax.planning.estimate import total_steps
from mixer_jax.reproduction import costs, standing
from mixer_jax.reproduction.exhibit import ACCURACY, Row
from mixer_jax.reproduction.fine_tuning import AVG5_TASKS, VTAB_TASKS, fine_tunings
from mixer_jax.reproduction.paper.exhibits import EXHIBITS
from mixer_jax.reproduction.recipes import RELEASED as RELEASED_FOR
from mixer_jax.reproduction.recipes import is_cited_model, pretraining
from mixer_jax.reproduction.runs import FROM_RELEASED, NOT_CHOSEN, Ours
from mixer_jax.reproduction.setup import WITHOUT_RUNS, Setup
from mixer_jax.reproduction.show import figures_of
from mixer_jax.reproduction.status import DEVIATES, DIFFERS, ESTIMATE, NOT_STARTED, REPRODUCED, SAME, STARTED, STATUSES
from mixer_jax.sweep.grid import choosing_jobs, final_jobs, settings
from mixer_jax.sweep.job import config_of
from mixer_jax.validation import validate

TABLE_2, TABLE_3 = EXHIBITS["table2"][0], EXHIBITS["table3"][0]
B16, B16_CONFIG = ("ImageNet", "Mixer-B/16"), "configs/finetune.py:imagenet"


def is_mixer(row: Row) -> bool:
    return row.name.startswith("Mixer")


def runs_of(exhibit: str, row: Row, column: str) -> list:
    return list(fine_tunings(row, column, pretraining(row), standing.image_size(exhibit, row), "small"))


def cost_of(exhibit: str, row: Row, column: str, runs: int | None = None) -> float:
    found = runs_of(exhibit, row, column)
    return sum(costs.fine_tuning_cost(row, pretraining(row), run).core_days * (runs or run.num_runs) for run in found)


def mixer_rows() -> list[tuple[str, Row]]:
    """Return the 15 Mixer rows whose fine-tunings differ: Table 3's, and H/14 at 448 pixels of Table 2."""
    large = [("table2", row) for row in TABLE_2.rows if row.name == "Mixer-H/14"]
    return [("table3", row) for row in TABLE_3.rows if is_mixer(row)] + large


def test_the_papers_protocol_has_as_many_runs_as_were_audited():
    assert sum(run.num_runs for exhibit, row in mixer_rows() for run in runs_of(exhibit, row, "avg5")) == 525
    vtab = [run for row in TABLE_2.rows if is_mixer(row) for run in runs_of("table2", row, "vtab")]
    assert sum(run.num_runs for run in vtab) == 228 and len(vtab) == 2 * 19
    vits = [row for row in TABLE_3.rows if row.name.startswith("ViT")]
    assert [sum(run.num_runs for run in runs_of("table3", row, "avg5")) for row in vits] == [35] * 7


def test_costs_are_those_that_were_audited():
    """The sums, in core-days, of an audit by hand of the paper's runs: 1710 for pre-training, and so on.

    The audit took the operations of an image of a fine-tuning to cost as much as those of the pre-training. It had 320, 137, 144
    and 42 where the recorded fine-tunings give 331, 142, 142 and 40.
    """
    assert sum(cost_of(exhibit, row, "avg5") for exhibit, row in mixer_rows()) == pytest.approx(331, abs=1)
    assert sum(cost_of(exhibit, row, "avg5", runs=3) for exhibit, row in mixer_rows()) == pytest.approx(142, abs=1)
    vtab = {row.name: cost_of("table2", row, "vtab") for row in TABLE_2.rows if is_mixer(row)}
    assert sum(vtab.values()) == pytest.approx(142, abs=1) and vtab["Mixer-L/16"] == pytest.approx(40, abs=1)
    recipes = {pretraining(row).config: costs.pretraining_cost(row, pretraining(row)) for _, row in mixer_rows()}
    assert sum(cost.core_days for cost in recipes.values()) == pytest.approx(1710, abs=1) and len(recipes) == 12
    public = [cost.core_days for config, cost in recipes.items() if "jft" not in config]
    assert sum(public) == pytest.approx(417, abs=1) and {cost.basis for cost in recipes.values()} == {costs.PLANNER}
    figure_2 = [cell for part in figures_of("figure2", "Mixer-*")["parts"][1:] for row in part["rows"] for cell in row["cells"]]
    runs = [cell["core_days_left"] for cell in figure_2 if cell["column"] != "300M"]
    assert len(runs) == 10 and sum(runs) == pytest.approx(843, abs=3)


def test_the_released_weights_that_stand_in_exist():
    assert set(RELEASED_FOR.values()) == {f"released:{weights.name}" for weights in released.RELEASED}
    for config, name in RELEASED_FOR.items():
        (weights,) = [weights for weights in released.RELEASED if f"released:{weights.name}" == name]
        assert read_config(config, []).model.variant == weights.variant
        assert read_config(config, []).num_classes == weights.num_classes


def test_vtab_has_the_19_tasks_of_the_config_and_the_other_five_are_rows_of_theirs():
    for config, tasks in (("finetune_vtab", VTAB_TASKS), ("finetune", AVG5_TASKS)):
        for task in tasks:
            assert read_config(f"configs/{config}.py:{task}", []).total.steps > 0
    assert len(set(VTAB_TASKS)) == 19


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, dict, dict]]:
    """Return (exhibit, row, cell) of all cells without any run. Of Table 1, whose models take long to trace, only S/32."""
    return [
        (name, row, cell)
        for name in EXHIBITS
        for part in figures_of(name, "S/32" if name == "table1" else "*")["parts"]
        for row in part["rows"]
        for cell in row["cells"]
    ]


def test_every_cell_has_a_status_and_without_a_figure_of_ours_a_reason_or_the_commands_that_make_it(everything):
    assert len(everything) > 400
    for _, _, cell in everything:
        assert cell["status"] in STATUSES
        can_be_run = cell["status"] == NOT_STARTED and cell["commands"]
        assert cell["ours"] is not None or cell["reasons"] or cell["deviations"] or can_be_run
        if cell["status"] == ESTIMATE:
            assert cell["deviations"] and cell["kind"] == "planned"


def test_without_runs_nothing_is_reproduced_and_the_code_has_what_the_paper_specifies(everything):
    assert not [cell for _, _, cell in everything if cell["status"] in (REPRODUCED, DIFFERS, DEVIATES, STARTED)]
    specified = [cell["status"] for exhibit, _, cell in everything if exhibit in ("table1", "table4")]
    assert specified == [SAME] * (7 + 40)


def test_every_row_that_can_be_run_has_costs_and_every_other_one_a_reason(everything):
    for exhibit, row, cell in everything:
        if exhibit in ("table2", "table3") and cell["kind"] == ACCURACY and cell["status"] in (NOT_STARTED, "no data"):
            assert cell["core_days_left"] > 0 or cell["column"] == "real"
            assert cell["commands"], row
    assert {row["name"] for _, row, cell in everything if cell["status"] == "cited"} == {
        "HaloNet [51]", "NFNet-F4+ [7]", "MPL [34]", "ALIGN [21]",
    }  # fmt: skip
    assert all(is_cited_model(row) for row in TABLE_2.rows if row.name.startswith(("HaloNet", "NFNet", "MPL", "ALIGN")))


def test_every_command_is_of_a_valid_config(everything):
    commands = {command for _, _, cell in everything for command in cell["commands"]}
    assert len(commands) > 100
    for command in commands:
        flags = shlex.split(command)[2:]
        (config,) = [flag.removeprefix("--config=") for flag in flags if flag.startswith("--config=")]
        validate(read_config(config, [flag for flag in flags if flag.startswith("--config.")]))


def test_the_flags_of_every_run_are_of_a_valid_config():
    """Both stages of every sweep of Tables 2 and 3, with each learning rate; the images that are held out are not trained on."""
    sweeps = {
        (run.folder, row.name): run.sweep(pretraining(row), WITHOUT_RUNS)
        for exhibit in ("table2", "table3")
        for row in EXHIBITS[exhibit][0].rows
        for column in EXHIBITS[exhibit][0].columns
        if column.kind == ACCURACY and column.name in row.cells and not standing.why_not_run(row, column, WITHOUT_RUNS)[0]
        for run in standing.fine_tunings_of(exhibit, row, column)
    }
    assert len(sweeps) > 100
    for sweep in sweeps.values():
        final = config_of(final_jobs(sweep, settings(sweep)[0])[0])
        choosing = choosing_jobs(sweep)
        if sweep.config.startswith("configs/finetune_bit.py"):
            assert list(choosing.values()) == [[]], "the rule has one learning rate"
            continue
        for setting, (job,) in choosing.items():
            config = config_of(job)
            validate(config)
            assert list(config.evals) == ["dev"] and config.optimizer.learning_rate == float(
                dict(setting)["optimizer.learning_rate"]
            )
            assert config.evals.dev.resize == final.evals.test.resize and config.evals.dev.data.source == config.data.source
            assert config.data.split != final.data.split and config.evals.dev.data.split != final.evals.test.data.split
        assert final.evals.test.data.split in ("test", "validation")


START = {
    "time": "", "command": "python train.py", "git_commit": "0123abcd", "python": "3.11", "versions": {}, "host": "",
    "platform": "cpu", "device_kind": "cpu", "parameters": 1, "devices": 1,
}  # fmt: skip


def make_run(workdir: Path, folder: str, config: str, top1: dict[str, float], *flags: str, step: int = 0) -> Path:
    """Write what a run that has ended leaves, or at `step`: its config and the accuracies of its evaluators."""
    made = read_config(config, [f"--config.{flag}" for flag in flags])
    run = workdir / folder
    run.mkdir(parents=True)
    (run / "config.json").write_text(made.to_json())
    (run / "run.json").write_text(json.dumps({"starts": [START | {"total_steps": total_steps(made)}]}))
    results = {"step": step or made.total.steps, "evals": {name: {"top1": value} for name, value in top1.items()}}
    (run / "results.json").write_text(json.dumps(results))
    return run


def cell_of(workdir: Path, row: tuple[str, str] = B16, column: str = "imagenet") -> dict:
    setup = Setup(workdir=str(workdir), has_runs=True)
    (part,) = figures_of("table3", f"{row[0]}: {row[1]},*224*", [column], setup)["parts"]
    (found,) = part["rows"]
    return found["cells"][0]


RELEASED = "init_from=released:imagenet1k/Mixer-B_16"
FOLDER = "imagenet-B16/imagenet-224-small"


def make_three_runs(workdir: Path) -> list[Path]:
    """Write what three runs of Mixer-B/16 on ImageNet leave."""
    folder, accuracies = f"{FOLDER}/final/optimizer.learning_rate=0.03", (0.764, 0.765, 0.7642)
    return [
        make_run(workdir, f"{folder}/seed{seed}", B16_CONFIG, {"test": top1}, RELEASED, f"seed={seed}")
        for seed, top1 in enumerate(accuracies)
    ]


def test_three_seeds_from_the_released_weights_have_a_mean_and_deviate(tmp_path: Path):
    make_three_runs(tmp_path)
    cell = cell_of(tmp_path)
    assert cell["ours"] == pytest.approx(76.44) and abs(cell["difference"]) < cell["tolerance"]
    assert cell["status"] == DEVIATES and cell["num_runs"] == 3
    assert cell["core_days_left"] == pytest.approx(cell_of(tmp_path / FOLDER)["core_days_left"] * 4 / 7), "the grid of 4 is left"
    assert cell["deviations"] == [NOT_CHOSEN, FROM_RELEASED]


def test_every_difference_from_the_recipe_is_a_deviation(tmp_path: Path):
    flags = (
        "init_from=other", "batch_size=256", "optimizer.learning_rate=0.5", "evals.test.resize=whole", "model.dtype=float32",
        "evals.test.data.split=validation[:100]",
    )  # fmt: skip
    make_run(tmp_path, f"{FOLDER}/final/optimizer.learning_rate=0.5/seed0", B16_CONFIG, {"test": 0.7}, *flags)
    said = " ".join(cell_of(tmp_path)["deviations"])
    for text in (
        "1 of 3 seeds in 1 runs",
        "batch_size=256 instead of 512",
        "0.5 is none of",
        "evaluation: resize='whole' instead of 'small'",
        "from other",
    ):
        assert text in said
    assert "evaluation: data.split='validation[:100]' instead of 'validation'" in said
    assert "model.dtype='float32' instead of 'bfloat16'" in said


def test_three_runs_of_one_seed_are_not_three_seeds(tmp_path: Path):
    for number in range(3):
        make_run(tmp_path, f"{FOLDER}/final/optimizer.learning_rate=0.03/seed{number}", B16_CONFIG, {"test": 0.76}, RELEASED)
    assert cell_of(tmp_path)["deviations"][0] == "1 of 3 seeds in 3 runs."


def test_a_learning_rate_is_not_chosen_by_the_test_split(tmp_path: Path):
    for rate in ("0.03", "0.01"):
        make_run(
            tmp_path,
            f"{FOLDER}/final/optimizer.learning_rate={rate}/seed0",
            B16_CONFIG,
            {"test": 0.7},
            RELEASED,
            f"optimizer.learning_rate={rate}",
        )
    cell = cell_of(tmp_path)
    assert cell["status"] == STARTED and cell["ours"] is None and "by the test split" in cell["reasons"][-1]


def test_a_run_that_has_not_ended_does_not_count_and_a_mean_of_five_needs_all_five(tmp_path: Path):
    make_run(tmp_path, f"{FOLDER}/final/optimizer.learning_rate=0.03/seed0", B16_CONFIG, {"test": 0.7}, RELEASED, step=10)
    assert cell_of(tmp_path)["status"] == NOT_STARTED
    for task in ("cifar10", "pets"):
        make_run(
            tmp_path,
            f"imagenet-B16/{task}-224-small/final/optimizer.learning_rate=0.03/seed0",
            f"configs/finetune.py:{task}",
            {"test": 0.9},
            RELEASED,
        )
    cell = cell_of(tmp_path, column="avg5")
    assert cell["status"] == STARTED and "2 of 5 data sets" in cell["reasons"][-1]


def test_the_weights_of_our_own_pre_training_are_checked(tmp_path: Path):
    own = tmp_path / "imagenet-B16/pretraining"
    make_run(
        tmp_path, f"{FOLDER}/final/optimizer.learning_rate=0.03/seed0", B16_CONFIG, {"test": 0.7, "real": 0.8}, f"init_from={own}"
    )
    assert f"not from {own}" in " ".join(cell_of(tmp_path)["deviations"]), "there is no such run yet"
    make_run(tmp_path, "imagenet-B16/pretraining", "configs/pretrain_imagenet.py:B/16", {}, "augment.mixup=0.2", step=93_000)
    said = " ".join(cell_of(tmp_path)["deviations"])
    assert "at step 93000 of 93835" in said and "pre-training: augment.mixup=0.2 instead of 0.5" in said
    assert standing.pretraining(TABLE_3.rows[0]).deviations[0] in said


def test_a_pre_training_that_has_ended_costs_nothing_more(tmp_path: Path):
    make_run(tmp_path, "imagenet-B16/pretraining", "configs/pretrain_imagenet.py:B/16", {}, step=93_835)
    done, other = cell_of(tmp_path, column="core_days"), cell_of(tmp_path, ("ImageNet", "Mixer-L/16"), "core_days")
    assert (done["core_days_left"], done["num_runs"], done["status"]) == (0, 1, ESTIMATE) and other["core_days_left"] > 20


def test_reals_labels_are_read_from_the_runs_of_imagenet(tmp_path: Path):
    flags = (RELEASED, "evals.real.data.source=tfds:imagenet2012_real", "evals.real.resize=small")
    for split, is_right in (("validation", True), ("train", False)):
        run = (tmp_path / split, f"{FOLDER}/final/optimizer.learning_rate=0.03/seed0", B16_CONFIG, {"test": 0.7, "real": 0.8})
        make_run(*run, *flags, f"evals.real.data.split={split}")
        cell = cell_of(tmp_path / split, column="real")
        assert cell["ours"] == pytest.approx(80)
        assert ("evaluation" not in " ".join(cell["deviations"])) == is_right


def test_a_figure_of_an_evaluator_that_the_config_lacks_deviates(tmp_path: Path):
    make_run(tmp_path, f"{FOLDER}/final/optimizer.learning_rate=0.03/seed0", B16_CONFIG, {"test": 0.7, "real": 0.8}, RELEASED)
    cell = cell_of(tmp_path, column="real")
    assert cell["status"] == DEVIATES and "real is not in the config of the run" in " ".join(cell["deviations"])


@pytest.mark.parametrize(
    ("ours", "status"),
    [
        (Ours(80.1, (3,)), REPRODUCED), (Ours(80.2, (3,)), DIFFERS), (Ours(80.1, (3,), ("1 of 3 seeds.",)), DEVIATES),
    ],
)  # fmt: skip
def test_only_a_figure_without_deviations_within_the_tolerance_is_reproduced(ours: Ours, status: str, tmp_path, monkeypatch):
    monkeypatch.setattr(standing, "ours_of", lambda *_: ours)
    assert cell_of(tmp_path, ("JFT-300M", "Mixer-B/16"))["status"] == status


@pytest.mark.parametrize(("content", "message"), [("{}", "missing or empty"), ('{"seed": "x"}', "is not the config of a run")])
def test_a_damaged_run_is_one_message(content: str, message: str, tmp_path: Path):
    run = make_run(tmp_path, f"{FOLDER}/final/optimizer.learning_rate=0.03/seed0", B16_CONFIG, {"test": 0.7})
    (run / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        cell_of(tmp_path)
