"""The sections of a page about a run: curves and time, training images, predictions, token mixing, records.

If a section cannot be made, because there is no checkpoint yet or the data have moved, a line says so, and the rest of the page
is not affected. page.py puts the sections in order.
"""

from collections.abc import Callable, Sequence
from html import escape

from mixer_jax.config import flatten
from mixer_jax.report import samples
from mixer_jax.report.charts import Line, line_chart, stacked_bar
from mixer_jax.report.document import number, paragraph, section, table
from mixer_jax.report.pictures import pairs_sheet, sheet
from mixer_jax.report.runs import (
    Run,
    config_differences,
    data_text,
    display_name,
    eval_curves,
    images_per_sec,
    last_step,
    points,
    seconds_by_part,
)

IMAGES, MISTAKES = 24, 12  # Small pictures fill two rows and one row.
UNITS = (
    "These are the {count} hidden units of the first block\u2019s token-mixing MLP. Each square is the weight of one of the "
    "{side} by {side} patches: red is positive, blue is negative, and white is zero. Every unit has a color scale of its own. "
    "The units are sorted from low to high spatial frequency, which is the centroid of the energy of the 2-D spectrum. Each "
    "unit stands beside the remaining one that is most its inverse. Figure 5 of the MLP-Mixer paper (arXiv 2105.01601) also "
    "pairs and sorts units, but the paper does not say how, so this rule is ours."
)


def run_section(run: Run, note: str = "") -> str:
    """Return the section with the facts, curves and time of a run, after a `note` that says what the run is for."""
    return section(run.label, *([paragraph(note)] if note else []), _facts(run), _charts(run), _time(run))


def training_images_section(run: Run) -> str:
    """Return the section with the first images of the run's training stream, augmented as in training."""
    mixup = ", before mixup blends them in pairs" if run.config.augment.mixup else ""

    def parts() -> list[str]:
        pictures = samples.training_images(run, IMAGES)
        return [
            paragraph(f"These are the first {len(pictures)} images of the training stream, after augmentation{mixup}."),
            sheet(pictures),
        ]

    return section(f"What the model sees: {run.label}", *_parts_or_reason(parts))


def predictions_section(run: Run) -> str:
    """Return the section with a random sample of test images, the newest checkpoint's predictions, and more of its mistakes."""

    def parts() -> list[str]:
        result = samples.predictions(run, IMAGES, MISTAKES)
        num_wrong = sum(bool(picture.mistaken_for) for picture in result.sample)
        sample = (
            f"These {len(result.sample)} images were drawn at random from the test set \u201c{result.evaluator}\u201d and are "
            f"shown as the evaluator sees them. Below each is the class that the parameters of step {number(result.step)} "
            f"predict. Wrong predictions, which are marked \u2717: {num_wrong}."
        )
        more = f"These are the next mistakes in the same random order, from {number(result.num_examined)} images in all."
        if not result.mistakes:
            more = f"There is no other mistake among all {number(result.num_examined)} test images."
        return [paragraph(sample), sheet(result.sample), paragraph(more), sheet(result.mistakes)]

    return section(f"What it answers: {run.label}", *_parts_or_reason(parts))


def pictures_left_out(run: Run) -> str:
    """Return the section that takes the place of pictures when they are not asked for, and that says what would be opened."""
    text = f"Trained on {data_text(run.config.data)}, as its config says. With --pictures, these and the test data are opened."
    return section(f"What the model sees and answers: {run.label}", paragraph(f"Not shown: images. {text}", "missing"))


def units_section(run: Run) -> str:
    """Return the section with the hidden units of the first token-mixing MLP, as in Figure 5 of arXiv 2105.01601."""

    def parts() -> list[str]:
        units = samples.token_mixing_units(run)
        pairs = samples.pair_units(units)
        count, side, _ = units.shape
        return [
            paragraph(UNITS.format(count=count, side=side)),
            pairs_sheet([[units[i] for i in pair] for pair in pairs]),
        ]

    return section(f"How it mixes tokens: {run.label}", *_parts_or_reason(parts))


def records_section(runs: Sequence[Run]) -> str:
    """Return the section with each run's command, commit, versions, config and differences from the first run's config.

    The record of a run is folded until the reader opens it.
    """
    return section("Records", *(_record(run, runs[0]) for run in runs))


def _parts_or_reason(parts: Callable[[], list[str]]) -> list[str]:
    try:
        return parts()
    except Exception as error:  # Data and checkpoints fail in many ways, and none of them should cost the rest of the page.
        return [paragraph(f"Not shown: {error}", "missing")]


def _facts(run: Run) -> str:
    start, rate = run.starts[-1] if run.starts else {}, images_per_sec(run)
    facts = {
        "steps": f"{number(last_step(run))} of {number(start['total_steps'])}" if start else "not started",
        "batch": f"{number(run.config.batch_size)} images",
        "rate, median": f"{number(rate, 3)} images/s" if rate else "\u2013",
        "parameters": number(start["parameters"]) if start else "\u2013",
        "device": f"{start['devices']} \u00d7 {start['device_kind']}" if start else "\u2013",
    }
    terms = (f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{"".join(terms)}</dl>'


def _charts(run: Run) -> str:
    training, rate = points(run, "loss"), points(run, "learning_rate")
    if not training:
        return paragraph("No step has been logged.", "missing")
    losses, top1 = eval_curves(run, "loss"), eval_curves(run, "top1")
    names = dict.fromkeys(map(display_name, (*top1, *losses)))
    colors = {name: i for i, name in enumerate(names, 1)}  # An evaluator has the same color in both charts.
    lines = [Line(display_name(name), curve, colors[display_name(name)]) for name, curve in losses.items()]
    charts = [line_chart("Loss", [Line("training", training), *lines])]
    if top1:
        lines = [Line(display_name(name), _percent(curve), colors[display_name(name)]) for name, curve in top1.items()]
        charts.append(line_chart("Evaluation top-1, %", lines))
    charts.append(line_chart("Learning rate", [Line("", rate)], width=190))
    return f'<div class="charts">{"".join(charts)}</div>'


def _percent(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(step, 100 * value) for step, value in curve]


def _time(run: Run) -> str:
    seconds = seconds_by_part(run)
    if not seconds:
        return paragraph("Time by part is recorded with the first evaluation.", "missing")
    title = "Time" if len(run.starts) < 2 else f"Time since the last of {len(run.starts)} starts"
    return stacked_bar(title, seconds, lambda value: f"{number(value, 3)}\u2009s")


def _record(run: Run, first: Run) -> str:
    lines = [("folder", str(run.workdir)), *(("command", start["command"]) for start in run.starts)]
    if run.starts:
        start = run.starts[-1]
        versions = ", ".join(f"{name} {version}" for name, version in start["versions"].items())
        lines += [("git commit", start["git_commit"]), ("versions", f"Python {start['python']}, {versions}")]
        lines += [("started", start["time"]), ("host", f"{start['host']} ({start['platform']})")]
    if "params_sha256" in run.results:
        lines.append(("parameters, sha256", run.results["params_sha256"]))
    terms = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(text)}</code></dd>" for name, text in lines)
    differences = config_differences(run, first)
    changed = table(("option", first.label, run.label), differences) if differences else ""
    config = "".join(f"{escape(name)} = {escape(repr(value))}\n" for name, value in flatten(run.config).items())
    word = "the first run" if run is first else f"options that differ from {first.label}: {len(differences)}"
    return (
        f"<details><summary>{escape(run.label)} <span>\u2014 {escape(word)}</span></summary><dl>{terms}</dl>{changed}"
        f"<details><summary>whole config</summary><pre>{config}</pre></details></details>"
    )
