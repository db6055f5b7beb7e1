"""The sections of a page: what they say about runs, and which of their figures and pictures they show.

If a section cannot be made, because there is no checkpoint yet or the data have moved, a line says so, and the rest of the page
is not affected. page.py puts the sections in order.
"""

import functools
from collections.abc import Callable, Sequence

from mixer_jax.checkpoints.permuted import permutation_note
from mixer_jax.checkpoints.weights import load_weights
from mixer_jax.config import flatten
from mixer_jax.pages.parts import (
    Bar,
    BarPart,
    Bars,
    Definitions,
    Facts,
    Folded,
    Listing,
    Pairs,
    Part,
    Section,
    Sheet,
    Table,
    Text,
    number,
)
from mixer_jax.pages.pictures import weights_picture
from mixer_jax.report import samples
from mixer_jax.report.curves import curves
from mixer_jax.report.runs import Run, config_differences, data_text, has_time_record, images_per_sec, last_step, seconds_by_part
from mixer_jax.report.units import pair_units, token_mixing_units

IMAGES = 24  # Small pictures fill two rows.
UNITS = (
    "These are the {count} hidden units of the first block\u2019s token-mixing MLP. Each square is the weight of one of the "
    "{side} by {side} patches: red is positive, blue is negative, and white is zero. Every unit has a color scale of its own. "
    "Each unit stands beside one that is nearly its inverse: the pair with the smallest cosine similarity is taken first, then "
    "the next one among the units that are left. The pairs are sorted from low to high spatial frequency, which is the centroid "
    "of the energy of the 2-D spectrum. Figure 5 of the MLP-Mixer paper (arXiv 2105.01601) also pairs and sorts units, but the "
    "paper does not say how, so this rule is ours."
)


def run_section(run: Run, *, with_curves: bool = True) -> Section:
    """Return the section with the facts and curves of a run, and the time of its last start if that of all is not recorded."""
    time = [] if has_time_record(run) else [_time(run)]
    return Section(run.label, [_facts(run), *(curves([run]) if with_curves else ()), *time])


def training_images_sections(runs: Sequence[Run]) -> list[Section]:
    """Return the sections with the first images of the training streams, augmented as in training.

    Runs whose images are equal, byte for byte, share a section.
    """
    labels_of: dict[tuple[Part, ...], list[str]] = {}
    for run in runs:
        labels_of.setdefault(tuple(parts_or_reason(functools.partial(_training_images, run))), []).append(run.label)
    return [Section(f"What the model sees: {', '.join(labels)}", parts) for parts, labels in labels_of.items()]


def _training_images(run: Run) -> list[Part]:
    mixup = ", before mixup blends them in pairs" if run.config.augment.mixup else ""
    pictures = tuple(samples.training_images(run, IMAGES))
    text = f"These are the first {len(pictures)} images of the training stream, after augmentation{mixup}."
    return [Text(text), Sheet(pictures)]


def pictures_left_out(runs: Sequence[Run]) -> Section:
    """Return the section in place of training images when pictures are not asked for. It says what would be opened."""
    data = ", ".join(dict.fromkeys(data_text(run.config.data) for run in runs))
    text = f"Not shown: images. With --pictures, the training data are opened, as the configs say: {data}."
    return Section("What the models see" if len(runs) > 1 else "What the model sees", [Text(text, is_missing=True)])


def units_section(run: Run) -> Section:
    """Return the section with the hidden units of the first token-mixing MLP, as in Figure 5 of arXiv 2105.01601."""

    def parts() -> list[Part]:
        weights = load_weights(str(run.workdir))
        units = token_mixing_units(weights.arrays)
        count, side, _ = units.shape
        pairs = [[weights_picture(units[i]) for i in pair.units] for pair in pair_units(units)]
        return [Text(f"{UNITS.format(count=count, side=side)}{permutation_note(weights.metadata)}"), Pairs(pairs)]

    return Section(f"How it mixes tokens: {run.label}", parts_or_reason(parts))


def records_section(runs: Sequence[Run]) -> Section:
    """Return the section with each run's command, commit, versions, config and differences from the first run's config.

    The record of a run is folded until the reader opens it.
    """
    return Section("Records", [_record(run, runs[0]) for run in runs])


def parts_or_reason(make_parts: Callable[[], list[Part]]) -> list[Part]:
    """Return the parts or, if they cannot be made, a line that says why."""
    try:
        return make_parts()
    except Exception as error:  # Data and checkpoints fail in many ways, and none of them should cost the rest of the page.
        return [Text(f"Not shown: {error}", is_missing=True)]


def _facts(run: Run) -> Facts:
    start, rate = run.starts[-1] if run.starts else {}, images_per_sec(run)
    return Facts({
        "trained on": data_text(run.config.data),
        "steps": f"{number(last_step(run))} of {number(start['total_steps'])}" if start else "not started",
        "batch": f"{number(run.config.batch_size)} images",
        "rate, median": f"{number(rate, 3)} images/s" if rate else "\u2013",
        "parameters": number(start["parameters"]) if start else "\u2013",
        "device": f"{start['devices']} \u00d7 {start['device_kind']}" if start else "\u2013",
    })  # fmt: skip


def _time(run: Run) -> Part:
    seconds = seconds_by_part(run)
    total = sum(seconds.values())
    if not total:
        return Text("Time by part is recorded with the first evaluation.", is_missing=True)
    legend, parts = [], []
    for number_of_part, (name, value) in enumerate(seconds.items()):
        text = f"{_seconds(value)} ({100 * value / total:.0f} %)"
        legend.append(BarPart(name, text, number_of_part))
        parts.append((number_of_part, 100 * value / total, text))
    title = "Time" if len(run.starts) < 2 else f"Time since the last of {len(run.starts)} starts"
    return Bars(title, _seconds(total), legend, [Bar("", 0.0, parts)])


def _seconds(value: float) -> str:
    return f"{number(value, 3)}\u2009s"


def _record(run: Run, first: Run) -> Folded:
    lines = [("folder", str(run.workdir)), *(("command", start["command"]) for start in run.starts)]
    if run.starts:
        start = run.starts[-1]
        versions = ", ".join(f"{name} {version}" for name, version in start["versions"].items())
        lines += [("git commit", start["git_commit"]), ("versions", f"Python {start['python']}, {versions}")]
        lines += [("started", start["time"]), ("host", f"{start['host']} ({start['platform']})")]
    if "params_sha256" in run.results:
        lines.append(("parameters, sha256", run.results["params_sha256"]))
    differences = config_differences(run, first)
    changed = [Table(("option", first.label, run.label), differences)] if differences else []
    config = Folded("whole config", "", [Listing([f"{name} = {value!r}" for name, value in flatten(run.config).items()])])
    note = "the first run" if run is first else f"options that differ from {first.label}: {len(differences)}"
    return Folded(run.label, note, [Definitions(lines), *changed, config])
