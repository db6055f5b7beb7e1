import json

import pytest

from mixer_jax.errors import UserError
from mixer_jax.report.runs import (
    config_differences,
    display_name,
    eval_curves,
    images_per_sec,
    last_step,
    points,
    read_run,
    seconds_by_part,
)


def test_a_folder_without_a_run_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        read_run(tmp_path)


def test_a_damaged_file_is_named(run_folder):
    (run_folder / "results.json").write_text('{"step": 4')
    with pytest.raises(UserError, match=r"results\.json is damaged"):
        read_run(run_folder)


def test_a_run_is_called_by_its_folder_unless_it_is_given_a_name(run_folder):
    assert (read_run(run_folder).label, read_run(run_folder, "Baseline").label) == ("run", "Baseline")


def test_a_run_that_has_only_begun_has_no_figures(tmp_path, write_run):
    write_run(tmp_path / "run", metrics=[])
    for name in ("run.json", "results.json", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    run = read_run(tmp_path / "run")
    assert (last_step(run), images_per_sec(run), seconds_by_part(run), eval_curves(run, "top1")) == (0, None, {}, {})


def test_points_leave_out_lines_without_the_metric(tmp_path, write_run):
    write_run(tmp_path / "run", metrics=[{"step": 1, "mfu": None}, {"step": 2, "mfu": 0.5}, {"step": 3}])
    assert points(read_run(tmp_path / "run"), "mfu") == [(2, 0.5)]


def test_a_figure_that_was_evaluated_once_is_no_curve(tmp_path, write_run):
    rows = [{"step": 1, "a/top1": 0.1}, {"step": 2, "a/top1": 0.2, "b/top1_5shot": 0.3, "a/loss": 1.0}]
    write_run(tmp_path / "run", metrics=rows)
    assert eval_curves(read_run(tmp_path / "run"), "top1") == {"a/top1": [(1, 0.1), (2, 0.2)]}


def test_figures_are_spoken_as_evaluator_and_shots():
    assert [display_name(name) for name in ("test/top1", "test/loss", "few/top1_10shot")] == ["test", "test", "few, 10-shot"]


def test_rates_are_the_median_and_steps_the_newest_known(run_folder):
    run = read_run(run_folder)
    assert (images_per_sec(run), last_step(run)) == (125.0, 40)


def test_seconds_by_part_sum_to_the_total(run_folder):
    seconds = seconds_by_part(read_run(run_folder))
    assert sum(seconds.values()) == 10.0 and list(seconds.values()) == [1.0, 2.0, 4.0, 3.0]


def test_parts_that_overrun_the_total_leave_no_negative_rest(run_folder):
    (run_folder / "results.json").write_text(json.dumps({"step": 1, "seconds": {"device": 2.0, "total": 1.9}}))
    assert min(seconds_by_part(read_run(run_folder)).values()) == 0.0


def test_config_differences_are_exactly_the_options_that_differ(tmp_path, write_run):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", seed=7, optimizer__learning_rate=0.5)
    first, second = read_run(tmp_path / "a"), read_run(tmp_path / "b")
    assert config_differences(second, first) == [("optimizer.learning_rate", "0.001", "0.5"), ("seed", "0", "7")]
    assert config_differences(first, first) == []
    del second.config.unlock()["seed"]
    assert ("seed", "0", "\u2013") in config_differences(second, first)
