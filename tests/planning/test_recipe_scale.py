"""`recipe-scale`: flags that give the batch that it states and follow the rules, and memory near the compiler's figures."""

import json
import math
from pathlib import Path

import pytest
from conftest import ROOT
from programs import finish, start

from mixer_jax import app
from mixer_jax.__main__ import make_parser
from mixer_jax.errors import UserError
from mixer_jax.planning import recipe_scale
from mixer_jax.planning.estimate import GIB, total_steps
from mixer_jax.planning.memory import FACTOR, StepSizes, step_sizes
from mixer_jax.planning.recipe_scale import scale
from mixer_jax.planning.recorded import recorded_table
from mixer_jax.training.schedule import make_schedule

TINY = "tests/tiny_config.py"
B16, L16, CIFAR = "configs/pretrain_imagenet.py:B/16", "configs/pretrain_jft300m.py:L/16", "configs/finetune.py:cifar10"
SIZES = StepSizes(
    state_bytes=2 * GIB, kernel_bytes=GIB, kept_once_bytes=GIB, gradient_bytes=GIB, image_bytes=2**18, normalized_bytes=2**19,
    activation_bytes=2**26, flops=1e9,
)  # fmt: skip
CONFIGS = [B16, L16, CIFAR, "configs/pretrain_vit_imagenet.py:B/16", "configs/pretrain_bit_jft300m.py:R50x1"]
DEVICES = {"v3:8x8": 128, "v4:4x4x4": 64, "v3:32x32": 2048, "v4:8x8x8": 512, "v5e:16x16": 256}


@pytest.fixture
def invented(monkeypatch) -> None:
    """Take invented sizes for every config: nothing is traced."""
    monkeypatch.setattr(recipe_scale, "step_sizes", lambda _: SIZES)


def flags_of(figures: dict) -> list[str]:
    return [line["flag"] for line in figures["flags"]]


def values_of(figures: dict) -> dict[str, float]:
    """{path of an option: its new value}."""
    return {name: float(value) for name, value in (flag.removeprefix("--config.").split("=") for flag in flags_of(figures))}


RECORDED = {row["config"]: [] for row in recorded_table("fit")["rows"]}
for line in recorded_table("fit")["rows"]:
    RECORDED[line["config"]].append(line)


@pytest.mark.parametrize("name", RECORDED)
def test_the_estimate_of_memory_is_one_to_some_times_what_the_tpu_compiler_reports(name: str):
    file, row = name.split()
    sizes = {}
    for line in RECORDED[name]:
        config = app.read_config(f"configs/{file}.py:{row}", line["overrides"].split())
        sizes[line["overrides"]] = sizes.get(line["overrides"]) or step_sizes(config)
        devices = DEVICES[line["topology"]]
        parts = sizes[line["overrides"]].parts(devices, devices * line["batch_per_core"], 1)
        estimate, compiled = sum(parts.values()) / GIB, line["memory_gib"]
        assert estimate >= compiled, line
        is_squeezed = compiled > 0.95 * line["memory_limit_gib"]  # The compiler computes arrays again until a program fits.
        assert is_squeezed or estimate <= FACTOR * compiled, line


def test_the_operations_of_an_image_are_those_that_the_tpu_compiler_counts():
    (line,) = (line for line in recorded_table("speed")["rows"] if line["model"] == "B/16" and line["batch_per_core"] == 256)
    peak = 61.5e12  # of a core of TPU v3
    assert step_sizes(app.read_config(B16, [])).flops == pytest.approx(peak / line["limit"], rel=0.01)


def test_with_remat_activations_are_smaller():
    config = app.read_config(TINY, [])
    whole = step_sizes(config)
    config.model.remat = True
    remat = step_sizes(config)
    assert whole.activation_bytes / 2 < remat.activation_bytes < whole.activation_bytes
    assert remat.flops > whole.flops
    assert remat.state_bytes == whole.state_bytes


@pytest.mark.usefixtures("invented")
@pytest.mark.parametrize("batch", [0, 256])
@pytest.mark.parametrize("config", CONFIGS)
def test_the_flags_give_the_stated_batch_and_the_fewest_parts_that_fit(config: str, batch: int):
    for devices in (1, 8):
        last = math.inf
        for memory_gib in (9, 12, 24, 100):
            figures = scale(config, [], devices, memory_gib, batch_size=batch)
            read = app.read_config(config, flags_of(figures))
            count, size = read.accumulation_steps, read.batch_size
            assert size == figures["batch_size"] == (batch or app.read_config(config, []).batch_size)
            assert count == figures["accumulation_steps"] <= last, "more memory never needs more parts"
            assert count * devices * figures["images_at_once_per_device"] == size
            assert figures["estimated_gib"] <= memory_gib
            fewer = [n for n in range(1, count) if size // devices % n == 0]
            assert all(sum(SIZES.parts(devices, size, n).values()) > memory_gib * GIB for n in fewer)
            assert all(0 < (evaluator.batch_size or size) <= size // count for evaluator in read.evals.values())
            last = count


@pytest.mark.usefixtures("invented")
@pytest.mark.parametrize("config", CONFIGS)
def test_a_recipe_that_fits_is_not_changed(config: str):
    figures = scale(config, [], 1, 1e6)
    assert figures["flags"] == [] and figures["notes"] == [recipe_scale.SAME]
    assert "none: the recipe fits as it is" in recipe_scale.format_scaled(figures)


@pytest.mark.usefixtures("invented")
def test_with_parts_alone_nothing_else_changes():
    figures = scale(L16, [], 1, 24)
    assert set(values_of(figures)) == {"accumulation_steps", "evals.fewshot.batch_size"}
    assert figures["notes"] == [recipe_scale.SAME]
    dropped = scale(L16, ["--config.model.dropout=0.1"], 1, 24)
    assert dropped["notes"] == [recipe_scale.SAME, recipe_scale.DRAWS]
    assert flags_of(dropped) == flags_of(figures)


@pytest.mark.usefixtures("invented")
def test_adam_follows_the_square_root_rule():
    figures = scale(B16, [], 1, 1e6, batch_size=256)  # k = 1/16
    assert values_of(figures) == {
        "batch_size": 256, "optimizer.learning_rate": 0.00025, "schedule.end_learning_rate": 2.5e-6,
        "optimizer.b1": 0.99375, "optimizer.b2": 0.9999375, "optimizer.eps": 4e-8, "optimizer.weight_decay": 0.025,
        "schedule.warmup.steps": 160_000, "checkpoint.every.steps": 40_000, "evals.fewshot.every.steps": 400_000,
    }  # fmt: skip
    assert figures["notes"] == [recipe_scale.OTHER_BATCH]


@pytest.mark.usefixtures("invented")
def test_sgd_follows_the_linear_rule():
    figures = scale(CIFAR, [], 1, 1e6, batch_size=128)  # k = 1/4
    assert values_of(figures) == {
        "batch_size": 128, "optimizer.learning_rate": 0.0075, "total.steps": 40_000, "schedule.warmup.steps": 2_000,
        "checkpoint.every.steps": 4_000, "evals.test.every.steps": 4_000,
    }  # fmt: skip


@pytest.mark.usefixtures("invented")
@pytest.mark.parametrize("config", [B16, f"{CIFAR}"])
@pytest.mark.parametrize("epochs", [0, 30])
def test_the_learning_rate_has_the_same_curve_and_as_much_decays(config: str, epochs: float):
    overrides = ["--config.optimizer.weight_decay=0.1"]
    figures = scale(config, overrides, 1, 1e6, batch_size=128, epochs=epochs, num_examples=1_281_167)
    before, after = app.read_config(config, overrides), app.read_config(config, [*overrides, *flags_of(figures)])
    curves, totals = [], []
    for read in (before, after):
        totals.append(total_steps(read, 1_281_167))
        curves.append(make_schedule(read.schedule, read.optimizer.learning_rate, totals[-1], read.schedule.warmup.steps))
    factor = after.optimizer.learning_rate / before.optimizer.learning_rate
    for share in (0.01, 0.05, 0.3, 0.7, 1.0):
        then, now = (float(curve(round(share * total))) for curve, total in zip(curves, totals, strict=True))
        assert now == pytest.approx(factor * then, rel=0.01, abs=1e-9)
    images = [total * read.batch_size for total, read in zip(totals, (before, after), strict=True)]
    decayed = [
        read.optimizer.learning_rate * read.optimizer.weight_decay / read.batch_size for read in (before, after)
    ]  # of a parameter, for an image at the peak
    assert decayed[0] == pytest.approx(decayed[1], rel=1e-4)
    if not epochs:
        assert images[0] == pytest.approx(images[1], rel=1e-4)
    assert (recipe_scale.OTHER_LENGTH in figures["notes"]) == bool(epochs)


@pytest.mark.usefixtures("invented")
def test_fewer_epochs_keep_the_share_of_the_warm_up():
    assert values_of(scale(B16, [], 1, 1e6, epochs=30)) == {"total.epochs": 30, "schedule.warmup.steps": 1_000}
    assert values_of(scale(B16, [], 1, 1e6, epochs=300)) == {}
    figures = values_of(scale(CIFAR, [], 1, 1e6, epochs=10, num_examples=50_000))
    assert figures == {"total.epochs": 10, "total.steps": 0, "schedule.warmup.steps": 49}  # 500 x 10 x 50 000 / (10 000 x 512)
    with pytest.raises(UserError, match="give --examples=N"):
        scale(CIFAR, [], 1, 1e6, epochs=10)


@pytest.mark.usefixtures("invented")
def test_an_averages_decay_is_over_as_many_images():
    assert values_of(scale(TINY, [], 1, 1e6, batch_size=4))["ema_decay"] == pytest.approx(0.9**0.25, abs=1e-6)


@pytest.mark.usefixtures("invented")
def test_the_cost_is_that_of_the_images():
    figures = scale(B16, [], 1, 24, images_per_second=1000)
    images = 93_835 * 4096
    core_days = figures["cost"].pop("tpu_v3_core_days")
    assert core_days == pytest.approx({"planner": 7.793, "paper": 10})
    assert figures["cost"] == {"steps": 93_835, "images": images, "flops": images * 1e9, "hours": images / 3_600_000}
    tenth = scale(B16, [], 1, 24, epochs=30)["cost"]
    assert tenth["hours"] is None
    assert tenth["tpu_v3_core_days"]["planner"] == pytest.approx(0.7793, rel=1e-3)
    assert scale(B16, ["--config.model.remat=True"], 1, 24)["cost"]["tpu_v3_core_days"]["planner"] is None


@pytest.mark.usefixtures("invented")
def test_what_cannot_be_is_refused_with_the_numbers():
    with pytest.raises(UserError, match=r"not fit in 4 GiB even with one image at a time on each device: it takes 8\.06"):
        scale(B16, [], 1, 4)
    with pytest.raises(UserError, match=r"state 2\.00, kernels 1\.00, gradients 2\.00, batch 3\.00, activations 0\.06\)"):
        scale(B16, [], 1, 4)
    with pytest.raises(UserError, match=r"--config\.model\.remat=True makes the activations smaller"):
        scale(B16, [], 1, 4)
    with pytest.raises(UserError, match="A batch of 4096 images cannot be split over 3 devices"):
        scale(B16, [], 3, 100)
    with pytest.raises(UserError, match="--batch-size=8192: it must be at most the recipe's, 4096"):
        scale(B16, [], 1, 100, batch_size=8192)
    with pytest.raises(UserError, match=r"config\.parallel\.fsdp is 8: it must divide the 2 devices"):
        scale(B16, ["--config.parallel.fsdp=8"], 2, 100)


def test_the_command_prints_text_and_json(capsys):
    typed = ["recipe-scale", f"--config={ROOT / TINY}", "--memory-gib=1", "--batch-size=8", "--config.seed=3"]
    assert app.run_tool(make_parser(typed), typed) == 0
    text = capsys.readouterr().out
    assert f"python train.py --config={ROOT / TINY} --config.seed=3 --config.batch_size=8 " in text
    assert "arXiv 2205.10287" in text and recipe_scale.OTHER_BATCH in text
    assert app.run_tool(make_parser(typed), [*typed, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["batch_size"] == 8 and all(line["flag"] in text and line["rule"] in text for line in figures["flags"])


@pytest.mark.parametrize(
    "wrong", ["--devices=0", "--memory-gib=0", "--memory-gib=nan", "--batch-size=0", "--epochs=0", "--epochs=x"]
)
def test_a_number_out_of_bounds_is_refused(wrong: str, capsys):
    typed = ["recipe-scale", f"--config={TINY}", "--memory-gib=1", wrong]
    with pytest.raises(SystemExit):
        app.run_tool(make_parser(typed), typed)
    assert wrong.split("=")[0] in capsys.readouterr().err


def test_training_runs_with_the_flags(tmp_path: Path):
    overrides = ["--config.total.steps=2", "--config.checkpoint.every.steps=2"]
    whole = scale(TINY, overrides, 2, 1)
    assert whole["flags"] == []
    figures = scale(TINY, overrides, 2, 0.99 * whole["estimated_gib"])
    assert figures["accumulation_steps"] > 1
    assert finish(start(f"--workdir={tmp_path}/run", *overrides, *flags_of(figures)))
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["batch_size"], config["accumulation_steps"]) == (16, figures["accumulation_steps"])
    assert json.loads((tmp_path / "run/results.json").read_text())["step"] == 2
