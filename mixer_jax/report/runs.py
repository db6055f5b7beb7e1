"""A run's folder, read back: its config, starts, metrics and results, and the figures that follow from them.

Works on running, stopped and finished runs alike; takes no lock and changes nothing. What the files hold is said in
mixer_jax/records.py.
"""

import statistics
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from mixer_jax.config import flatten, recorded_config
from mixer_jax.errors import UserError
from mixer_jax.records import read_metrics, read_results
from mixer_jax.report.forms import check_config, check_form
from mixer_jax.storage import read_json

# results.json's parts of a run's seconds, in the words of the page; what is left of the total is the last.
PARTS = {
    "compile": "compiling",
    "data": "waiting for input",
    "device": "waiting for the accelerator",
    "checkpoint": "checkpoints",
    "evaluation": "evaluation",
}
REST = "start-up and Python"


class Run(NamedTuple):
    workdir: Path
    label: str  # what the page calls it
    config: ConfigDict
    starts: list[dict]  # of run.json, the last one the newest; empty before the first step
    metrics: list[dict]
    results: dict  # of results.json; empty before the first evaluation


def read_run(workdir: Path, label: str = "") -> Run:
    """The run in `workdir`, called `label` or by the folder's name. Raises UserError for a folder without, or a damaged one."""
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
        check_form(workdir / name, content)
    starts, metrics, results = contents.values()
    return Run(workdir, label or workdir.name, config, starts.get("starts", []), metrics, results)


def points(run: Run, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric, wherever a line of metrics.jsonl has it."""
    return [(row["step"], row[name]) for row in run.metrics if row.get(name) is not None]


def eval_curves(run: Run, prefix: str) -> dict[str, list[tuple[int, float]]]:
    """{name: points} of evaluators' figures that begin with `prefix`, such as test/top1 and few/top1_5shot for "top1".

    Only those evaluated at least twice: one point is no curve.
    """
    names = dict.fromkeys(name for row in run.metrics for name in row)
    curves = {name: points(run, name) for name in names if name.partition("/")[2].startswith(prefix)}
    return {name: curve for name, curve in curves.items() if len(curve) > 1}


def spoken(name: str) -> str:
    """test/top1 -> test; few/top1_5shot -> few, 5-shot."""
    evaluator, _, figure = name.partition("/")
    shots = figure.partition("_")[2].replace("shot", "-shot")
    return f"{evaluator}, {shots}" if shots else evaluator


def last_step(run: Run) -> int:
    """The newest step that the folder knows of."""
    return max([run.results.get("step", 0), *(row["step"] for row in run.metrics)])


def images_per_sec(run: Run) -> float | None:
    """Median over the logged lines; None before the first."""
    rates = [rate for _, rate in points(run, "images_per_sec")]
    return statistics.median(rates) if rates else None


def seconds_by_part(run: Run) -> dict[str, float]:
    """Seconds of the last start in PARTS and REST, which sum to its total; {} before the first evaluation."""
    if "seconds" not in run.results:
        return {}
    seconds = run.results["seconds"]
    parts = {words: seconds[part] for part, words in PARTS.items() if part in seconds}
    return parts | {REST: max(0.0, seconds["total"] - sum(parts.values()))}


def config_differences(run: Run, other: Run) -> list[tuple[str, str, str]]:
    """(option, value in `other`, value in `run`) of every option that differs, with an en dash where one lacks it."""
    ours, theirs = flatten(run.config), flatten(other.config)

    def text(config: dict, name: str) -> str:
        return repr(config[name]) if name in config else "\u2013"

    names = [name for name in sorted(ours | theirs) if text(ours, name) != text(theirs, name)]
    return [(name, text(theirs, name), text(ours, name)) for name in names]


def data_text(data: ConfigDict) -> str:
    """Return where a config's training images come from, in a line."""
    if data.parts:
        return " + ".join(f"{part.weight:g} x ({data_text(part)})" for part in data.parts.values())
    amount = f", {data.examples_per_class} a class" if data.examples_per_class else ""
    return f"{data.source}, {data.split}{amount}"
