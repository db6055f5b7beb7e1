"""What a page says about a run, a section each: curves and time, training images, predictions, token mixing, records.

A section whose material is not there (no checkpoint yet, data that have moved) says so in a line; the rest of the page
stands. Not here: the order of a page (page.py).
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
    eval_curves,
    images_per_sec,
    last_step,
    points,
    seconds_by_part,
    spoken,
)

IMAGES, MISTAKES = 24, 12  # two rows of small pictures, and one
UNITS = (
    "The {count} hidden units of the first block\u2019s token-mixing MLP. Each square is a weight for one of the "
    "{side} by {side} patches: red positive, blue negative, white zero, every unit on its own scale. From low to high "
    "spatial frequency (centroid of the energy of the 2-D spectrum), each unit beside the remaining one that is most "
    "its inverse. Figure 5 of the MLP-Mixer paper (arXiv 2105.01601) pairs and sorts its units in this spirit but does "
    "not say how: this rule is ours."
)


def run_section(run: Run, note: str = "") -> str:
    """Facts, curves and time of a run, after a `note` that says what it is for."""
    return section(run.label, *([paragraph(note)] if note else []), _facts(run), _charts(run), _time(run))


def training_images_section(run: Run) -> str:
    """The first images of the run's training stream, augmented as the model saw them."""
    mixup = ", before mixup blends them in pairs" if run.config.augment.mixup else ""

    def parts() -> list[str]:
        pictures = samples.training_images(run, IMAGES)
        return [
            paragraph(f"The first {len(pictures)} images of the training stream, as augmented{mixup}."),
            sheet(pictures),
        ]

    return section(f"What the model sees: {run.label}", *_or_why_not(parts))


def predictions_section(run: Run) -> str:
    """A random sample of test images with the newest checkpoint's predictions, and more of its mistakes."""

    def parts() -> list[str]:
        found = samples.predictions(run, IMAGES, MISTAKES)
        wrong = sum(bool(picture.mistaken_for) for picture in found.sample)
        sample = (
            f"{len(found.sample)} images drawn at random from the test set \u201c{found.evaluator}\u201d, as evaluated, "
            f"over the class that the parameters of step {number(found.step)} predict. Wrong, and marked \u2717: {wrong}."
        )
        more = f"Mistakes found next in the same random order, after {number(found.looked_at)} images in all."
        if not found.mistakes:
            more = f"No other mistake among all {number(found.looked_at)} test images."
        return [paragraph(sample), sheet(found.sample), paragraph(more), sheet(found.mistakes)]

    return section(f"What it answers: {run.label}", *_or_why_not(parts))


def pictures_left_out(run: Run) -> str:
    """Say that images were not asked for, and what would be opened."""
    text = f"Trained on {data_text(run.config.data)}, as its config says. With --pictures, that and its test data are opened."
    return section(f"What the model sees and answers: {run.label}", paragraph(f"Not shown: images. {text}", "missing"))


def units_section(run: Run) -> str:
    """The hidden units of the first token-mixing MLP, as Figure 5 of arXiv 2105.01601 shows them."""

    def parts() -> list[str]:
        units = samples.token_mixing_units(run)
        pairs = samples.pair_units(units)
        count, side, _ = units.shape
        return [
            paragraph(UNITS.format(count=count, side=side)),
            pairs_sheet([[units[i] for i in pair] for pair in pairs]),
        ]

    return section(f"How it mixes tokens: {run.label}", *_or_why_not(parts))


def records_section(runs: Sequence[Run]) -> str:
    """For each run: command, commit, versions and config, folded, with what differs from the first run's config."""
    return section("Records", *(_record(run, runs[0]) for run in runs))


def _or_why_not(parts: Callable[[], list[str]]) -> list[str]:
    try:
        return parts()
    except Exception as error:  # data and checkpoints fail in many ways, none of which should cost the rest of the page
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
    names = dict.fromkeys(map(spoken, (*top1, *losses)))
    colours = {name: i for i, name in enumerate(names, 1)}  # an evaluator's is the same in both charts
    lines = [Line(spoken(name), curve, colours[spoken(name)]) for name, curve in losses.items()]
    charts = [line_chart("Loss", [Line("training", training), *lines])]
    if top1:
        lines = [Line(spoken(name), _percent(curve), colours[spoken(name)]) for name, curve in top1.items()]
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
