"""The content of a run's folder: its config, starts, metrics and results, and the figures that follow from them.

A run may be running, stopped or finished. Nothing is locked or changed. mixer_jax/records.py describes the files.
"""

import statistics
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from mixer_jax.config import flatten
from mixer_jax.errors import UserError
from mixer_jax.recorded_config import recorded_config
from mixer_jax.records import read_metrics, read_results
from mixer_jax.report.forms import check_config, check_form
from mixer_jax.storage import read_json
from mixer_jax.supervision.recorded_starts import GOODPUT

# {part in the "seconds" of results.json: its name on the page}. REST is the name of the seconds that are in none of them.
PARTS = {
    "compile": "compiling",
    "data": "waiting for input",
    "device": "waiting for the device",
    "checkpoint": "checkpoints",
    "evaluation": "evaluation",
}
REST = "start-up and Python"


class Run(NamedTuple):
    """The content of a run's folder."""

    workdir: Path
    label: str  # the name of the run on the page
    config: ConfigDict
    starts: list[dict]  # from run.json, in the order of time; empty before the first start is recorded
    metrics: list[dict]  # the lines of metrics.jsonl
    results: dict  # from results.json; empty before the first evaluation


def read_run(workdir: Path, label: str = "") -> Run:
    """Return the run in `workdir`. Its label is `label` or, without one, the folder's name.

    Raises UserError if the folder holds no run, or a damaged one.
    """
    workdir = Path(workdir).expanduser().absolute()
    if not (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds no run: it has no config.json. Name the folder that was a run's --workdir.")
    config = recorded_config(read_json(workdir / "config.json"))
    check_config(workdir / "config.json", config)
    contents = {
        "run.json": read_json(workdir / "run.json"),
        "metrics.jsonl": read_metrics(workdir),
        "results.json": read_results(workdir),
    }
    for name, content in contents.items():
        check_form(str(workdir / name), content)
    starts, metrics, results = contents.values()
    return Run(workdir, label or workdir.name, config, starts.get("starts", []), metrics, results)


def points(run: Run, name: str) -> list[tuple[int, float]]:
    """Return (step, value) of a metric for each line of metrics.jsonl that has a value of it."""
    return [(row["step"], row[name]) for row in run.metrics if row.get(name) is not None]


def eval_curves(run: Run, prefix: str) -> dict[str, list[tuple[int, float]]]:
    """Return {name: points} of the evaluators' figures that begin with `prefix`.

    For "top1", such figures are test/top1 and few/top1_5shot. Figures with a single point are left out.
    """
    names = dict.fromkeys(name for row in run.metrics for name in row)
    curves = {name: points(run, name) for name in names if name.partition("/")[2].startswith(prefix)}
    return {name: curve for name, curve in curves.items() if len(curve) > 1}


def display_name(name: str) -> str:
    """Return the name of a figure on the page: "test" for test/top1, and "few, 5-shot" for few/top1_5shot."""
    evaluator, _, figure = name.partition("/")
    shots = figure.partition("_")[2].replace("shot", "-shot").replace("_", " ")
    return f"{evaluator}, {shots}" if shots else evaluator


def last_step(run: Run) -> int:
    """Return the last step for which the folder has metrics or results."""
    return max([run.results.get("step", 0), *(row["step"] for row in run.metrics)])


def images_per_sec(run: Run) -> float | None:
    """Return the median of the logged images/s, or None if none has been logged."""
    rates = [rate for _, rate in points(run, "images_per_sec")]
    return statistics.median(rates) if rates else None


def seconds_by_part(run: Run) -> dict[str, float]:
    """Return the seconds since the last start, by part of the run, under the names on the page.

    They sum to the total. The result is {} before the first evaluation.
    """
    if "seconds" not in run.results:
        return {}
    seconds = run.results["seconds"]
    parts = {name: seconds[part] for part, name in PARTS.items() if part in seconds}
    return parts | {REST: max(0.0, seconds["total"] - sum(parts.values()))}


def has_time_record(run: Run) -> bool:
    """Return whether the time of all starts is recorded. It is not in runs from before December 2026."""
    return (run.workdir / GOODPUT).exists()


def config_differences(run: Run, other: Run) -> list[tuple[str, str, str]]:
    """Return (option, value in `other`, value in `run`) for every option that differs.

    An en dash stands for the value of an option that a config does not have.
    """
    config, other_config = flatten(run.config), flatten(other.config)

    def text(options: dict, name: str) -> str:
        return repr(options[name]) if name in options else "\u2013"

    names = [name for name in sorted(config | other_config) if text(config, name) != text(other_config, name)]
    return [(name, text(other_config, name), text(config, name)) for name in names]


def data_text(data: ConfigDict) -> str:
    """Return a line that names the training images of a config: source, split, and the number per class if it is limited."""
    if data.parts:
        return " + ".join(f"{part.weight:g} x ({data_text(part)})" for part in data.parts.values())
    amount = f", {data.examples_per_class} per class" if data.examples_per_class else ""
    return f"{data.source}, {data.split}{amount}"
