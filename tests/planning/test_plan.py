"""The planner's figures, recipe lengths, search and refusals. No test needs the TPU compiler: a fake one answers."""

import sys

import pytest
from planning.fake_compiler import FakeCompiler

from mixer_jax import __main__, app, endings
from mixer_jax.accelerators import GENERATIONS
from mixer_jax.errors import UserError
from mixer_jax.planning import compiler, plan, search
from mixer_jax.planning.estimate import total_steps
from mixer_jax.planning.plan import PAPER_CORE_DAYS, PAPER_THROUGHPUT, paper_core_days
from mixer_jax.planning.topology import num_devices

CONFIG = "configs/pretrain_jft300m.py:B/16"


def test_figures_are_the_compilers_cycles_at_the_clock_and_bytes_over_the_links():
    found = plan.plan(FakeCompiler(), CONFIG, app.read_config(CONFIG, []), "v3:4x4", batch_per_core=64)
    assert (found["devices"], found["batch_per_core"]) == (32, 64)
    assert found["compute_seconds"] == pytest.approx(0.064)  # An image takes 940 000 cycles, at 940 MHz.
    assert found["communication_seconds"] == pytest.approx(2 * 82e6 / 164e9)
    assert found["step_seconds"] == pytest.approx(0.065)
    assert found["images_per_sec_per_core"] == pytest.approx(64 / 0.065)
    assert found["collective_shares"] == {"all-reduce": pytest.approx(0.001 / 0.065)}
    assert found["limit_share"] == pytest.approx(64e9 / 0.065 / 61.5e12)
    assert sum(found["memory_parts_gib"].values()) == pytest.approx(found["memory_gib"]) == pytest.approx(1.5 + 6.4)
    steps = 7 * 303_000_000 / (64 * 32)
    assert found["steps"] == pytest.approx(steps, abs=3)
    assert found["core_days"] == pytest.approx(steps * 0.065 * 32 / 86400, rel=1e-3)
    assert found["paper"] == {"images_per_sec_per_core": 1384, "core_days": 80}


def test_text_says_what_estimated_it_and_what_does_not_fit_by_how_much():
    config = app.read_config(CONFIG, [])
    text = plan.format_plan(plan.plan(FakeCompiler(), CONFIG, config, "v3:4x4", num_slices=2, batch_per_core=16))
    assert "2 x v3:4x4" in text and "Estimated by the TPU compiler (libtpu 0, jax 0)" in text and "(paper, TPU-v3: 80)" in text
    too_large = plan.plan(FakeCompiler(), CONFIG, config, "v3:4x4", batch_per_core=1024)
    assert (too_large["fits"], too_large["over_gib"]) == (False, 5.25)
    assert "Does not fit. It is 5.25 GiB too much." in plan.format_plan(too_large)


def test_a_batch_that_the_pod_cannot_split_is_refused():
    with pytest.raises(UserError, match=r"has 128 devices.*--batch-per-core"):
        plan.plan(FakeCompiler(), CONFIG, app.read_config(CONFIG, ["--config.batch_size=100"]), "v3:8x8")


@pytest.mark.parametrize(
    ("config", "steps"),
    [  # arXiv 2105.01601, section 3.1: epochs at batch 4096. Of ImageNet-21k, 51 200 images are held out.
        ("configs/pretrain_imagenet.py:B/16", 93_835),
        ("configs/pretrain_imagenet21k.py:L/16", 1_036_078),
        ("configs/pretrain_jft300m.py:B/16", 517_822),
        ("configs/pretrain_jft300m.py:L/16-14ep", 1_035_645),
        ("configs/finetune.py:imagenet", 20_000),
    ],
)
def test_a_recipes_length_is_known_without_its_data(config, steps):
    assert total_steps(app.read_config(config, [])) == steps


def test_a_recipe_of_epochs_over_unknown_images_needs_their_number():
    config = app.read_config(CONFIG, ["--config.data.source=records:elsewhere"])
    with pytest.raises(UserError, match=r"records:elsewhere.*--examples"):
        total_steps(config)
    assert total_steps(config, num_examples=4096) == 7


def test_the_papers_columns_are_of_rows_and_models_that_exist():
    for file, rows in PAPER_CORE_DAYS.items():
        for row in rows:
            config = app.read_config(f"configs/{file}.py:{row}", [])
            of_family = [variants for (family, _), variants in PAPER_THROUGHPUT.items() if family == config.model.family]
            assert any(config.model.variant in variants for variants in of_family)
            assert paper_core_days(f"configs/{file}.py:{row}") == PAPER_CORE_DAYS[file][row]
    assert paper_core_days("configs/finetune.py:imagenet") is None


@pytest.mark.parametrize(
    ("name", "devices"), [("v2:2x2", 8), ("v3:32x32", 2048), ("v4:8x8x8", 512), ("v5e:16x16", 256), ("tpu7x:2x2x1", 8)]
)
def test_a_topology_is_a_generation_and_a_shape_in_chips(name, devices):
    assert num_devices(name) == devices


@pytest.mark.parametrize("name", ["v3", "v9:2x2", "v3:axb", "", "v3:"])
def test_an_unknown_topology_is_refused_with_those_that_there_are(name):
    with pytest.raises(UserError) as caught:
        num_devices(name)
    assert all(f"{known}: " in str(caught.value) for known in GENERATIONS)


@pytest.mark.parametrize(
    ("fake", "fsdp", "remat", "largest"),
    [
        (FakeCompiler(), 1, False, 136),
        (FakeCompiler(state_gib=31), 2, True, 8),
        (FakeCompiler(gib_an_image=0.7), 1, False, 19),
        (FakeCompiler(gib_an_image=3), 1, True, 9),
    ],
)
def test_the_search_finds_the_cheapest_flags_and_the_largest_batch_in_a_bounded_number_of_compilations(
    fake, fsdp, remat, largest
):
    found = search.search(fake, CONFIG, app.read_config(CONFIG, ["--config.batch_size=1024"]), "v3:8x8")
    assert (found["best"]["fsdp"], found["best"]["remat"]) == (fsdp, remat)
    assert len(found["tried"]) <= search.MOST_COMPILATIONS
    assert largest <= found["best"]["batch_per_core"] <= largest * 9 / 8 + 1
    assert f"--config.batch_size={128 * found['best']['batch_per_core']} " in found["flags"]
    assert found["flags"] in search.format_search(found)
    assert plan.plan(fake, CONFIG, app.read_config(CONFIG, found["flags"].split()), "v3:8x8")["fits"]


def test_what_no_flag_makes_fit_is_said():
    with pytest.raises(UserError, match="does not fit on v3:8x8"):
        search.search(FakeCompiler(state_gib=1e6), CONFIG, app.read_config(CONFIG, []), "v3:8x8")


def test_without_the_compiler_the_command_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(compiler, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["mixer_jax", "plan", f"--config={CONFIG}", "--topology=v3:8x8"])
    assert __main__.main() == endings.TO_MEND
    assert "`make plan` installs it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--search", "--batch-per-core=8"], "looks for the batch itself"),
        (["--topology=v3:8x8"], "--config is missing"),
        ([f"--config={CONFIG}"], "--topology is missing"),
        (["--fit", "--config.model.remat=True"], "python -m benchmarks.planning fit"),
        (["--table", "speed"], "python -m benchmarks.planning throughput | speed"),
        (["--table=throughput"], "python -m benchmarks.planning throughput | speed"),
        (["--check", "--topology=v3:8x8"], "python -m benchmarks.planning check"),
    ],
)
def test_options_that_do_not_fit_or_have_moved_are_refused_before_the_compiler_is_looked_for(flags, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mixer_jax", "plan", *flags])
    assert __main__.main() == endings.TO_MEND
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
