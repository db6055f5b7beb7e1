"""What a run writes to its folder, and which runs are refused in it."""

import json
import os
import resource

import pytest
from ml_collections import ConfigDict
from tiny_config import get_config

from mixer_jax.config import dataset, fewshot, mixture
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.options import OPTIONS, RENAMED, current_name
from mixer_jax.records import MetricWriter, read_metrics, read_results
from mixer_jax.workdir import Workdir, refuse_run_folder


@pytest.fixture
def workdir(tmp_path):
    return Workdir(str(tmp_path / "run"))


def changed(**changes) -> ConfigDict:
    config = get_config()
    for field, value in changes.items():
        *parents, last = field.split("__")
        part = config
        for name in parents:
            part = part[name]
        part[last] = value
    return config


def test_a_second_run_in_a_folder_is_refused_with_the_name_of_the_first(workdir):
    with pytest.raises(EnvironmentFault, match=rf"{workdir.path} is in use by process {os.getpid()} on .*another --workdir"):
        Workdir(str(workdir.path))
    Workdir(str(workdir.path), writer=False)  # This is another host of the same run.


def test_a_folder_is_free_again_when_its_run_has_ended(tmp_path):
    first = Workdir(str(tmp_path))
    del first
    Workdir(str(tmp_path))


def test_a_host_that_does_not_write_leaves_no_trace(tmp_path):
    follower = Workdir(str(tmp_path / "run"), writer=False)
    follower.record_start(get_config(), {})
    follower.add_results({"step": 1})
    metrics = MetricWriter(follower.path, 0, writer=False)
    metrics.write(1, {"loss": 1.0})
    metrics.close()
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_takes_any_config_and_a_started_one_its_own(workdir):
    workdir.refuse_other_run(get_config())
    workdir.record_start(get_config(), {})
    workdir.refuse_other_run(get_config())


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"seed": 7}, ["seed: 0 there, 7 now"]),
        (
            {"optimizer__learning_rate": 0.5, "batch_size": 8},
            ["batch_size: 16 there, 8", "optimizer.learning_rate: 0.01 there, 0.5"],
        ),
        ({"data__source": "folder:x"}, ["data.source: 'digits' there, 'folder:x' now"]),
        ({"total__steps": 60}, ["total.steps: 30 there, 60 now"]),
        ({"optimizer__multipliers": (("head/.*", 2.0),)}, ["optimizer.multipliers: [] there, [['head/.*', 2.0]] now"]),
        ({"log_every_steps": 1, "model__dropout": 0.0}, ["model.dropout: 0.1 there, 0.0 now"]),
    ],
)
def test_another_config_is_refused_with_exactly_the_options_that_differ_and_matter(workdir, changes, lines):
    workdir.record_start(get_config(), {})
    with pytest.raises(UserError) as refusal:
        workdir.refuse_other_run(changed(**changes))
    named = [line for line in str(refusal.value).splitlines() if line.startswith("  ")]
    assert len(named) == len(lines)
    assert all(line.strip().startswith(expected) for line, expected in zip(named, lines, strict=True))


MOVED = {  # {name of an option of the training data: its value before, its value now}
    "a folder": ("source", "folder:/a/photos", "folder:/b/photos"),
    "shards": ("source", "records:a", "records:~/b"),
    "the directory of TFDS": ("data_dir", "/a", "/b"),
    "another kind": ("source", "folder:/a", "records:/a"),
    "another data set of TFDS": ("source", "tfds:cifar10", "tfds:cifar100"),
    "another task": ("source", "vtab:pets", "vtab:dtd"),
    "another split": ("split", "train", "test"),
}


@pytest.mark.parametrize("in_mixture", [False, True])
@pytest.mark.parametrize("case", MOVED)
def test_where_the_training_data_lie_is_no_difference_between_runs_and_is_said(workdir, case, in_mixture, capsys):
    option, then, now = MOVED[case]

    def config(value: str) -> ConfigDict:
        data, made = dataset("folder:/x", "train"), get_config()
        data[option] = value
        made.data = mixture(photos=data, digits=dataset("digits")) if in_mixture else data
        return made

    workdir.record_start(config(then), {})
    name = f"data.{'parts.photos.' * in_mixture}{option}"
    if case.startswith("another"):
        with pytest.raises(UserError, match=rf"{name}: '{then}' there, '{now}' now"):
            workdir.refuse_other_run(config(now))
    else:
        workdir.refuse_other_run(config(now))
        workdir.say_moved_data(config(now))
        said = f"config.{name} is {now} now, and was {then}: the records are the same, so the run goes on.\n"
        assert capsys.readouterr().out == said


def test_an_evaluation_and_a_run_do_not_replace_each_others_results(tmp_path):
    evaluation = Workdir(str(tmp_path / "evaluation"))
    refuse_run_folder(str(evaluation.path))
    results = {"step": 1, "params_sha256": "a", "evals": {}, "evaluators": {}, "checkpoint": "runs/a"}
    assert evaluation.replaced_by(results) == ""
    evaluation.add_results(results)
    assert evaluation.replaced_by(results) == ""
    said = f"{evaluation.path}/results.json had the figures of runs/a: these replace them."
    assert evaluation.replaced_by(results | {"params_sha256": "b"}) == said
    with pytest.raises(UserError, match=r"has the results of evaluate\.py.*another --workdir"):
        evaluation.refuse_other_run(get_config())
    run = Workdir(str(tmp_path / "run"))
    run.record_start(get_config(), {})
    with pytest.raises(UserError, match=f"{run.path} is the folder of a run.*another --workdir"):
        refuse_run_folder(str(run.path))


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_a_run_can_be_made_longer_where_its_schedule_does_not_depend_on_its_length_and_otherwise_is_told_why_not(workdir, decay):
    workdir.record_start(changed(schedule__decay=decay), {})
    longer = changed(schedule__decay=decay, total__steps=60)
    if decay == "constant":
        workdir.refuse_other_run(longer)
    else:
        with pytest.raises(
            UserError, match=rf"(?s)total.steps: 30 there.*--config.init_from={workdir.path} --config.init_head=r"
        ):
            workdir.refuse_other_run(longer)


@pytest.mark.parametrize(
    "changes",
    [
        {"log_every_steps": 1},
        {"loader__workers": 1, "loader__processes": True, "loader__prefetch": 1, "loader__max_unreadable_share": 0.5},
        {"checkpoint__keep": 9},
        {"checkpoint__every__steps": 17},
        {"parallel__fsdp": 4},
        {"evals": {}},
        {"evals": {"other": fewshot(dataset("digits"), dataset("digits"), shots=(3,))}},
    ],
)
def test_a_run_may_be_watched_stored_and_spread_in_another_way_when_taken_up(workdir, changes):
    workdir.record_start(get_config(), {})
    workdir.refuse_other_run(changed(**changes))


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_run_whose_config_has_an_old_name_of_an_option_is_the_same_run(workdir, old, new, capsys):
    current_name.cache_clear()
    workdir.record_start(get_config(), {})
    file = workdir.path / "config.json"
    assert f'"{new}"' in file.read_text()
    file.write_text(file.read_text().replace(f'"{new}"', f'"{old}"'))
    workdir.refuse_other_run(get_config())
    with pytest.raises(UserError, match="seed: 0 there, 7 now") as refusal:
        workdir.refuse_other_run(changed(seed=7))
    assert old not in str(refusal.value)
    assert capsys.readouterr().err == f"The option {old} is now called {new}.\n"


NEW = [row for row in OPTIONS if row.before not in (None, row.default) and not row.resumable]
UNCHANGED = [row for row in OPTIONS if row.before == row.default and not row.resumable]


def forget(workdir: Workdir, path: str) -> None:
    """Change the run in the folder to one that was started before this option existed."""
    content = json.loads((workdir.path / "config.json").read_text())
    *parents, name = path.split(".")
    part = content
    for parent in parents:
        part = part[parent]
    del part[name]
    (workdir.path / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("row", NEW, ids=lambda row: row.name)
def test_a_run_from_before_an_option_goes_on_unless_the_option_changes_what_it_did_and_then_is_told_what_to_type(workdir, row):
    assert row.only, "an option that always has an effect would stop every older run"
    other, *_ = row.only
    workdir.record_start(get_config(), {})
    forget(workdir, row.name)
    workdir.refuse_other_run(get_config())  # The option has no effect in this config.

    used = {other.replace(".", "__"): 2}
    workdir.record_start(changed(**used), {})
    forget(workdir, row.name)
    with pytest.raises(UserError) as refusal:
        workdir.refuse_other_run(changed(**used))
    expected = f"{row.name}: {row.before!r} there, {row.default!r} now: --config.{row.name}={row.before}"
    assert str(refusal.value).splitlines()[1].strip() == expected
    assert len(str(refusal.value).splitlines()) == 2
    workdir.refuse_other_run(changed(**used | {row.name.replace(".", "__"): row.before}))


@pytest.mark.parametrize("row", UNCHANGED, ids=lambda row: row.name)
def test_a_run_from_before_an_option_goes_on_with_its_default_and_with_nothing_else(workdir, row):
    workdir.record_start(get_config(), {})
    forget(workdir, row.name)
    workdir.refuse_other_run(get_config())
    assert row.choices, "add a value that differs from the default"
    for choice in set(row.choices) - {row.before}:
        with pytest.raises(UserError, match=f"{row.name}: {row.before!r} there, {choice!r} now"):
            workdir.refuse_other_run(changed(**{row.name.replace(".", "__"): choice}))


def test_an_option_without_effect_is_no_difference(workdir):
    workdir.record_start(changed(augment__randaugment_magnitude=15), {})
    workdir.refuse_other_run(get_config())


@pytest.mark.parametrize("file", ["config.json", "run.json", "results.json"])
def test_a_damaged_file_is_named(workdir, file):
    workdir.record_start(get_config(), {})
    workdir.add_results({"step": 1})
    (workdir.path / file).write_text('{"step": ')
    with pytest.raises(UserError, match=f"{file} is damaged"):
        workdir.refuse_other_run(get_config())
        workdir.record_start(get_config(), {})
        read_results(workdir.path)


def test_every_start_is_recorded_with_its_facts(workdir):
    for devices in (8, 4):
        workdir.record_start(get_config(), {"devices": devices})
    starts = json.loads((workdir.path / "run.json").read_text())["starts"]
    assert [start["devices"] for start in starts] == [8, 4]
    assert {"time", "command", "git_commit", "python", "versions", "host"} <= starts[0].keys()
    assert starts[0]["versions"].keys() >= {"jax", "flax", "optax", "numpy"}
    assert json.loads((workdir.path / "config.json").read_text())["batch_size"] == 16


def test_results_are_empty_at_first_and_then_the_last_written(workdir):
    assert read_results(workdir.path) == {}
    results = {"step": 1, "params_sha256": "a", "evals": {"test": {"top1": 0.5}}, "evaluators": {"test": {"resize": "small"}}}
    workdir.add_results(results)
    workdir.add_results(results | {"step": 2})
    assert read_results(workdir.path) == results | {"step": 2}


@pytest.mark.parametrize("other", [{"step": 2}, {"params_sha256": "b"}, {}])
def test_figures_of_other_evaluators_stay_in_the_results_of_the_same_parameters_alone(workdir, other):
    results = {"step": 1, "params_sha256": "a"}
    workdir.add_results(results | {"evals": {"old": {"top1": 0.5}}, "predictions": {"old": "predictions/old.parquet"}})
    new = {"evals": {"new": {"top1": 0.25}}, "evaluators": {"new": {"resize": "small"}}, "predictions": {}}
    workdir.add_results(results | other | new)
    evaluators = {"new", "old"} if not other else {"new"}
    assert read_results(workdir.path)["evals"].keys() == evaluators
    assert read_results(workdir.path)["predictions"].keys() == evaluators - {"new"}
    # Before December 2026, results did not describe their evaluator.
    assert workdir.has_figures(1, "old", {}, False) == (not other)
    step = other.get("step", 1)
    assert workdir.has_figures(step, "new", {"resize": "small"}, False)
    assert not workdir.has_figures(step, "new", {"resize": "whole"}, False)
    assert not workdir.has_figures(step + 1, "new", {"resize": "small"}, False)


def test_metrics_after_the_restored_step_are_dropped_and_written_again(workdir):
    metrics = MetricWriter(workdir.path, 0)
    for step in (2, 4, 6):
        metrics.write(step, {"loss": 1 / step, "mfu": None})
    metrics.close()

    again = MetricWriter(workdir.path, 4)
    assert read_metrics(workdir.path) == [{"step": step, "loss": 1 / step, "mfu": None} for step in (2, 4)]
    again.write(6, {"loss": 9.0})
    again.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(workdir.path)] == [(2, 1 / 2), (4, 1 / 4), (6, 9.0)]
    assert list((workdir.path / "tensorboard").iterdir())


def test_a_full_disk_is_met_in_the_writing_of_events_not_in_a_thread_that_the_run_would_wait_for(workdir):
    metrics = MetricWriter(workdir.path, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))  # This limit on the size of files acts like a full disk.
    try:
        with pytest.raises(OSError, match="File too large") as error:
            for step in range(100):
                metrics.write(step, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename in (str(workdir.path / "metrics.jsonl"), str(workdir.path / "tensorboard"))


def test_the_last_line_cut_short_by_a_kill_is_left_out_and_gone_after_resuming(workdir):
    metrics = MetricWriter(workdir.path, 0)
    metrics.write(2, {"loss": 1.0})
    metrics.close()
    with open(workdir.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert read_metrics(workdir.path) == [{"step": 2, "loss": 1.0}]
    resumed = MetricWriter(workdir.path, 4)
    resumed.write(4, {"loss": 2.0})
    resumed.close()
    assert [json.loads(line)["step"] for line in (workdir.path / "metrics.jsonl").read_text().splitlines()] == [2, 4]


@pytest.mark.parametrize("line", [b"{", b"3", b'{"loss": 1}', b"\xff\x00", b"[" * 100_000, b'{"step": "x"}', b""])
def test_a_damaged_line_costs_no_other_and_is_kept_aside(workdir, line, capsys):
    rows = [{"step": step, "loss": 1.0} for step in (2, 4, 6)]
    texts = [json.dumps(row).encode() for row in rows]
    (workdir.path / "metrics.jsonl").write_bytes(b"\n".join([texts[0], line, *texts[1:], b'{"step": 8, "lo']))
    assert read_metrics(workdir.path) == rows
    MetricWriter(workdir.path, 8).close()
    assert read_metrics(workdir.path) == rows
    assert "1 lines of " in capsys.readouterr().out
    (aside,) = workdir.path.glob("metrics.damaged-*.txt")
    assert aside.read_bytes() == line + b"\n"


def test_figures_of_evaluators_are_metrics_by_evaluator_and_figure_without_lists(workdir):
    metrics = MetricWriter(workdir.path, 0)
    metrics.write_evals(5, {"test": {"top1": 0.5}, "few": {"top1_1shot": 0.25, "top1_1shot_seeds": [0.2, 0.3]}})
    metrics.close()
    assert read_metrics(workdir.path) == [{"step": 5, "test/top1": 0.5, "few/top1_1shot": 0.25}]


def test_a_run_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []
