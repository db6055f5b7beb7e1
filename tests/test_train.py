"""Whole runs of train.py: what they write, how they resume after kills and signals, fine-tuning, and several processes."""

import gc
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoints.models import random_weights
from data.unreadable_images import write_corpus
from programs import finish, start, start_two, wait_for, without_timings
from tensorboard_events import read_scalars

import evaluate
import train
from mixer_jax.checkpoints.weights import save_weights
from mixer_jax.config import classification, dataset
from mixer_jax.data.stream.order import EpochOrder
from mixer_jax.endings import DONE, STOPPED, TO_MEND, TRY_AGAIN
from mixer_jax.errors import UserError
from mixer_jax.evaluation.example_predictions import read_predictions
from mixer_jax.models.identify import ModelSpec
from mixer_jax.preparation.prepare import prepare
from mixer_jax.preparation.spec import PreparationSpec
from mixer_jax.records import read_metrics

PROCESSES = "--config.loader.processes=true"


def results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


def steps_on_disk(workdir: Path) -> list[int]:
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").glob("*") if folder.name.isdecimal())


def reproducible_rows(workdir: Path) -> list[dict]:
    """Return the lines of metrics.jsonl without the figures that depend on the speed of the machine."""
    return without_timings(read_metrics(workdir))


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """Return the folder of a run that was never interrupted."""
    workdir = tmp_path_factory.mktemp("reference")
    finish(start(f"--workdir={workdir}"))
    return workdir


def test_a_run_leaves_results_metrics_records_and_checkpoints(reference: Path):
    final = results(reference)
    assert final["step"] == 30 and len(final["params_sha256"]) == 64
    assert final["evals"]["test"]["examples"] == 359
    assert {"top1", "top5", "loss"} <= final["evals"]["test"].keys()
    assert len(final["evals"]["fewshot"]["top1_5shot_seeds"]) == 2
    assert steps_on_disk(reference) == [20, 25, 30]
    rows = read_metrics(reference)
    assert [row["step"] for row in rows if "loss" in row] == list(range(2, 31, 2))
    assert [row["step"] for row in rows if "test/top1" in row] == [10, 20, 30]
    scalars = read_scalars(reference / "tensorboard")
    assert scalars["loss"] == {row["step"]: pytest.approx(row["loss"]) for row in rows if "loss" in row}
    record = json.loads((reference / "run.json").read_text())["starts"][-1]
    assert record["devices"] == 2 and record["versions"]["jax"] and record["step_flops_per_device"] > 0


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(reference: Path, tmp_path: Path):
    rng = random.Random(0)
    for _ in range(4):
        process = start(f"--workdir={tmp_path}")
        before = steps_on_disk(tmp_path)
        wait_for(lambda before=before: steps_on_disk(tmp_path) != before, process)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(start(f"--workdir={tmp_path}"))
    assert results(tmp_path)["params_sha256"] == results(reference)["params_sha256"]
    assert results(tmp_path)["evals"] == results(reference)["evals"]
    assert reproducible_rows(tmp_path) == reproducible_rows(reference)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_stop_saves_and_goes_on_to_the_same_bits(reference: Path, tmp_path: Path, number: signal.Signals):
    process = start(f"--workdir={tmp_path}", PROCESSES)
    wait_for(lambda: bool(read_metrics(tmp_path)), process)
    os.killpg(process.pid, number)  # The worker processes get the signal too, as they do from a terminal or a supervisor.
    output = finish(process, STOPPED)
    assert "saved" in output and "Traceback" not in output
    stopped_at = steps_on_disk(tmp_path)[-1]
    assert f"step {stopped_at} of 30" in output
    finish(start(f"--workdir={tmp_path}"))
    assert json.loads((tmp_path / "run.json").read_text())["starts"][-1]["first_step"] == stopped_at
    assert results(tmp_path)["params_sha256"] == results(reference)["params_sha256"]


@pytest.fixture
def cut_off(reference: Path, tmp_path: Path) -> Path:
    """Return a copy of the reference run, as if it had been killed before it wrote its results."""
    workdir = shutil.copytree(reference, tmp_path / "run")
    (workdir / "results.json").unlink()
    return workdir


def test_an_evaluation_that_a_stop_cut_off_is_made_up_for(reference: Path, cut_off: Path):
    for step in (25, 30):
        shutil.rmtree(cut_off / "checkpoints" / str(step))
    rows = [row for row in read_metrics(cut_off) if row["step"] < 20 or (row["step"] == 20 and "loss" in row)]
    (cut_off / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    finish(start(f"--workdir={cut_off}"))
    assert reproducible_rows(cut_off) == reproducible_rows(reference)


def test_a_finished_run_started_again_says_so_and_changes_nothing(reference: Path):
    before = (reference / "results.json").read_bytes()
    assert "finished" in finish(start(f"--workdir={reference}"))
    assert (reference / "results.json").read_bytes() == before


def test_a_run_killed_before_its_last_evaluation_evaluates_when_started_again(reference: Path, cut_off: Path):
    finish(start(f"--workdir={cut_off}"))
    assert {**results(cut_off), "seconds": None} == {**results(reference), "seconds": None}
    assert reproducible_rows(cut_off) == reproducible_rows(reference)


@pytest.mark.parametrize("classes_of_data", [True, False])
def test_the_number_of_classes_is_that_of_the_data_or_refused(tiny_config, capsys, classes_of_data: bool):
    train.choose_num_classes(tiny_config, tiny_config.num_classes, classes_of_data)
    assert capsys.readouterr().out == ""
    if classes_of_data:
        train.choose_num_classes(tiny_config, 3, classes_of_data)
        assert tiny_config.num_classes == 3 and "--config.num_classes=3" in capsys.readouterr().out
    else:
        with pytest.raises(UserError, match=r"have 3 classes: set --config\.num_classes=3"):
            train.choose_num_classes(tiny_config, 3, classes_of_data)


def test_two_processes_stop_at_the_same_step_when_one_is_told_to(tmp_path: Path):
    processes = start_two(f"--workdir={tmp_path}", "--config.total.steps=5000")
    wait_for(lambda: bool(read_metrics(tmp_path)), processes[0])
    processes[1].send_signal(signal.SIGTERM)
    outputs = [finish(process, STOPPED) for process in processes]
    stopped_at = steps_on_disk(tmp_path)[-1]
    assert 0 < stopped_at < 5000
    assert all(f"step {stopped_at} of 5000" in output for output in outputs)


def test_two_processes_end_with_the_parameters_of_one(reference: Path, tmp_path: Path):
    for process in start_two(f"--workdir={tmp_path}"):
        finish(process)
    for name in ("loss", "grad_norm", "param_norm", "test/top1", "test/loss", "fewshot/top1_5shot"):
        one, two = ([row[name] for row in read_metrics(d) if name in row] for d in (reference, tmp_path))
        np.testing.assert_allclose(two, one, rtol=1e-5, err_msg=name)
    assert results(tmp_path)["evals"]["test"]["examples"] == 359
    one, two = (read_predictions(folder / "predictions/test.parquet") for folder in (reference, tmp_path))
    assert (two.params_sha256, two.keys) == (results(tmp_path)["params_sha256"], one.keys)
    np.testing.assert_array_equal(two.labels, one.labels)
    np.testing.assert_allclose(two.probabilities, one.probabilities, rtol=1e-3)
    assert np.mean(two.classes == one.classes) > 0.99


def test_fine_tuning_replaces_the_head_restores_the_rest_and_lists_both(reference: Path, tmp_path: Path, tiny_config, capsys):
    tiny_config.init_from = str(reference)
    tiny_config.total.steps = 2
    tiny_config.optimizer.learning_rate = 0.0
    tiny_config.ema_decay = 0.0
    assert train.train(tiny_config, str(tmp_path)) == DONE
    listing = capsys.readouterr().out
    assert "restored" in listing and "MixerBlock_0" in listing
    assert "replaced     2 arrays: head" in listing
    assert results(tmp_path)["evals"]["fewshot"] == results(reference)["evals"]["fewshot"]
    assert results(tmp_path)["evals"]["test"]["loss"] == pytest.approx(np.log(10))  # The head is zero.


def test_a_step_of_a_run_can_be_fine_tuned_with_its_head(reference: Path, tmp_path: Path, tiny_config):
    tiny_config.init_from, tiny_config.init_head = str(reference / "checkpoints/30"), "restore"
    tiny_config.total.steps = 1
    tiny_config.optimizer.learning_rate = 0.0
    tiny_config.ema_decay = 0.0  # The averaged parameters of the reference become the parameters.
    assert train.train(tiny_config, str(tmp_path)) == DONE
    assert results(tmp_path)["params_sha256"] == results(reference)["params_sha256"]


@pytest.mark.parametrize("family", ["mixer", "vit"])
def test_weights_from_a_file_are_fine_tuned_and_evaluated_at_another_resolution(family, tmp_path: Path, tiny_config, capsys):
    config, file = tiny_config, str(tmp_path / "w.safetensors")
    model = {
        "mixer": ModelSpec("mixer", {"variant": "S/2", "num_blocks": 2, "hidden_dim": 16, "tokens_mlp_dim": 8}, 7, 8),
        "vit": ModelSpec("vit", {"variant": "S/2", "num_blocks": 1, "hidden_dim": 16, "num_heads": 1}, 7, 8),
    }[family]
    save_weights(random_weights(model), file)
    config.model = model.config()
    if family == "mixer":
        config.model.tile_size = 8
    config.init_from, config.image_size, config.total.steps, config.ema_decay = file, 16, 2, 0.0
    config.optimizer.learning_rate = 0.0
    del config.evals["fewshot"]
    config.evals.test.resize_size = 16
    assert train.train(config, str(tmp_path / "run")) == DONE
    said = capsys.readouterr().out
    assert ("2 x 2 tiles" in said, "position embeddings interpolated" in said) == (family == "mixer", family == "vit")
    assert f"From {file}" in said and "replaced     2 arrays: head" in said
    assert evaluate.evaluate(config, str(tmp_path / "run"), str(tmp_path / "out")) == DONE
    assert results(tmp_path / "out")["evals"] == results(tmp_path / "run")["evals"]


def test_a_checkpoint_of_another_model_is_refused_with_all_differences(reference: Path, tmp_path: Path, tiny_config):
    tiny_config.init_from = str(reference)
    tiny_config.model.hidden_dim = 32
    tiny_config.model.num_blocks = 1
    with pytest.raises(UserError) as error:
        train.train(tiny_config, str(tmp_path))
    assert "extra     MixerBlock_1/LayerNorm_0/bias" in str(error.value)
    assert "differs   stem/kernel" in str(error.value)


def test_another_config_in_the_same_folder_is_refused_but_watching_options_may_change(reference: Path, tiny_config):
    tiny_config.log_every_steps = 7
    assert train.train(tiny_config, str(reference)) == DONE
    tiny_config.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"optimizer.learning_rate: 0.01 there, 0.5 now"):
        train.train(tiny_config, str(reference))


def test_a_loss_that_is_not_finite_stops_the_run_and_never_reaches_a_checkpoint(tmp_path: Path, tiny_config):
    tiny_config.optimizer.learning_rate = 1000.0
    tiny_config.optimizer.weight_decay = 1000.0  # Each step multiplies the kernels by 1e12.
    tiny_config.optimizer.multipliers = ((".*", 1e6),)
    tiny_config.optimizer.clip_norm = 0.0
    tiny_config.schedule.warmup.steps = 0
    tiny_config.schedule.decay = "constant"
    tiny_config.checkpoint.every.steps = 1
    with pytest.raises(UserError, match=r"Step \d+ is not finite"):
        train.train(tiny_config, str(tmp_path))
    rows = read_metrics(tmp_path)
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert (steps_on_disk(tmp_path) or [0])[-1] <= 2


def test_training_data_that_changed_are_refused(tmp_path: Path, tiny_config):
    tiny_config.data.source = "folder:" + str(tmp_path / "data")
    tiny_config.evals = {}
    tiny_config.total.steps = 2
    write_folder(tmp_path / "data", images_per_class=3)
    assert train.train(tiny_config, str(tmp_path / "run")) == DONE
    file = next((tmp_path / "data").rglob("*.png"))
    file.rename(file.with_name("another.png"))
    with pytest.raises(UserError, match=r"have changed .* \(source: \w+ then, \w+ now\)"):
        train.train(tiny_config, str(tmp_path / "run"))
    write_folder(tmp_path / "data", images_per_class=4)
    with pytest.raises(UserError, match="examples: 30 then, 41 now"):
        train.train(tiny_config, str(tmp_path / "run"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[str, set[int]]:
    """Return a source of 1000 training images of 10 classes, and the numbers of its 52 unreadable records."""
    root = tmp_path_factory.mktemp("corpus")
    return f"folder:{root}", set(write_corpus(root / "train", classes=10))


def test_too_many_bad_images_stop_the_run_and_with_a_higher_share_it_goes_on_and_counts_on(corpus, tmp_path, tiny_config, capfd):
    source, bad = corpus
    tiny_config.data.source, tiny_config.evals, tiny_config.log_every_steps = source, {}, 1
    with pytest.raises(UserError, match=r"(?s)By step \d+, 1\d of \d+ .*max_unreadable_share allows 1\.00%.*\.jpg, is ") as error:
        train.train(tiny_config, str(tmp_path / "run"))
    stopped_at = int(re.search(r"By step (\d+)", str(error.value))[1])
    del error  # Its traceback refers to the run, which holds the lock of the folder.
    gc.collect()
    assert steps_on_disk(tmp_path / "run")[-1] == (stopped_at - 1) // 5 * 5  # Nothing that was saved is lost.
    tiny_config.loader.max_unreadable_share = 0.06
    assert train.train(tiny_config, str(tmp_path / "run")) == DONE
    assert train.train(tiny_config, str(tmp_path / "unbroken")) == DONE
    assert reproducible_rows(tmp_path / "run") == reproducible_rows(tmp_path / "unbroken")
    order = EpochOrder(1000, tiny_config.seed)
    substituted = np.cumsum([order(position)[1] in bad for position in range(16 * 30)])[15::16]
    assert [row["substituted"] for row in read_metrics(tmp_path / "run") if "loss" in row] == substituted.tolist()
    assert capfd.readouterr().err.count("another takes its place") >= substituted[-1]


def test_two_processes_stop_at_the_same_step_when_too_many_images_are_bad(corpus, tmp_path):
    flags = (f"--config.data.source={corpus[0]}", "--config.loader.max_unreadable_share=0.002", "--config.evals=None")
    outputs = [finish(process, TO_MEND) for process in start_two(f"--workdir={tmp_path}", *flags)]
    said = [re.findall(r"error: (By step \d+, \d+ of \d+ training images could not be read)", output) for output in outputs]
    assert said[0] and said[0] == said[1], outputs
    assert all("Traceback" not in output for output in outputs)


def test_a_run_trains_on_prepared_shards_and_an_altered_one_is_named_before_the_run_leaves_anything(
    tmp_path, tiny_config, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folder(tmp_path / "data", images_per_class=3)
    prepare(PreparationSpec(f"folder:{tmp_path / 'data/train'}", "train", records_per_shard=8), tmp_path / "shards", threads=2)
    prepared = dataset(f"records:{tmp_path / 'shards'}", "train")
    tiny_config.data, tiny_config.evals = prepared, {"test": classification(prepared, resize_size=8)}
    tiny_config.total.steps = 2
    assert train.train(tiny_config, str(tmp_path / "run")) == DONE
    shard = tmp_path / "shards/train/train-00002-of-00004.array_record"
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"train-00002-of-00004\.array_record is altered"):
        train.train(tiny_config, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def write_folder(directory: Path, images_per_class: int) -> None:
    import cv2

    for label in range(10):
        folder = directory / "train" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(images_per_class):
            cv2.imwrite(str(folder / f"{i}.png"), np.full((9, 8, 3), 20 * label + i, np.uint8))


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.optimizer.learningrate=1"], 'no option --config.optimizer.learningrate. Did you mean "learning_rate"'),
        (["--config.batch_size=many"], "--config.batch_size=many: invalid literal for int()"),
        (["--config.total.epochs=1"], "exactly one of steps, epochs, examples must be set"),
        (["--config.data.source=tfds:imagenet2012"], "imagenet2012 is not prepared"),
        (["--config.model.variant=S/3"], "multiples of 3"),
        (
            ["--config.augment.crop=random", "--config.augment.crop_min_area=0.05", "--config.augment.resize_size=7"],
            "at least image_size=8",
        ),
        (["surplus"], "Unknown arguments ['surplus']"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing_behind(tmp_path: Path, flags: list[str], message: str):
    output = finish(start(f"--workdir={tmp_path / 'run'}", *flags), TO_MEND)
    assert message in output and "Traceback" not in output
    assert not (tmp_path / "run").exists()


def test_a_row_that_a_config_file_refuses_is_one_message(tmp_path: Path):
    output = finish(start(f"--workdir={tmp_path / 'run'}", config="--config=configs/pretrain_jft300m.py:XL/16"), TO_MEND)
    assert output.startswith("error: The paper has no JFT-300M pre-training of 'XL/16': its rows are S/32")
    assert "Traceback" not in output


def test_a_second_run_in_a_folder_that_is_in_use_is_refused(tmp_path: Path):
    first = start(f"--workdir={tmp_path}", "--config.total.steps=100000")
    try:
        wait_for(lambda: bool(read_metrics(tmp_path)), first)
        assert f"is in use by process {first.pid} on" in finish(start(f"--workdir={tmp_path}"), TRY_AGAIN)
    finally:
        first.kill()
        first.communicate()
