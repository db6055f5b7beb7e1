"""The demo: pre-training, fine-tuning and evaluation on small data with the commands that a user types, and a page about them.

Each stage is a run of train.py or evaluate.py in its own folder. If the demo is stopped and started again, it continues where it
was.
"""

import statistics
import time
from pathlib import Path

from mixer_jax.app import stage
from mixer_jax.pages.page import check_installed, refuse_other_file, write_page
from mixer_jax.pages.parts import Section, Table
from mixer_jax.records import read_results
from mixer_jax.report.answers import answers_sections
from mixer_jax.report.runs import Run, read_run
from mixer_jax.report.sections import (
    records_section,
    run_section,
    training_images_sections,
    units_section,
)
from mixer_jax.report.wall_time import wall_time_sections
from mixer_jax.text_table import format_table

SEEDS = (0, 1, 2)  # Each seed chooses its own 10 labeled images per class.


def run_demo(workdir: Path) -> None:
    """Run all stages in folders within `workdir`, write the page, and print the table of results and the path of the page.

    Raises UserError or EnvironmentFault if a stage fails, and before the first one if the page could not be written.
    """
    start = time.monotonic()
    workdir = workdir.absolute()
    page = workdir / "report.html"
    check_installed()
    refuse_other_file(page)
    pretrained = workdir / "pretrain"
    stage("train.py", "configs/demo/pretrain.py", pretrained)
    stage("evaluate.py", "configs/demo/pretrain.py", workdir / "evaluate", f"--checkpoint={pretrained}")
    for seed in SEEDS:
        seeds = (f"--config.seed={seed}", f"--config.data.subset_seed={seed}")
        stage("train.py", "configs/demo/finetune.py:few", workdir / f"few-{seed}", f"--config.init_from={pretrained}", *seeds)
        stage("train.py", "configs/demo/finetune.py:scratch", workdir / f"scratch-{seed}", *seeds)
    stage("train.py", "configs/demo/finetune.py:full", workdir / "full", f"--config.init_from={pretrained}")

    rows = results_rows(workdir)
    write_report(page, workdir, rows)
    print(f"\n{format_rows(rows)}\n\n{time.monotonic() - start:.0f} s. Curves, pictures and records: {page}")


HEADER = ("", "labels per class", "test top-1", "each seed")


def results_rows(workdir: Path) -> list[tuple[str, ...]]:
    """Return the rows of the table of results, read from the results.json of the stages."""

    def top1(name: str) -> float:
        return read_results(workdir / name)["evals"]["test"]["top1"]

    evaluated = read_results(workdir / "evaluate")["evals"]
    few, scratch = ([top1(f"{stage}-{seed}") for seed in SEEDS] for stage in ("few", "scratch"))
    return [
        ("glyphs: pre-trained, validation", "all", _percent(evaluated["validation"]["top1"]), ""),
        ("digits: linear, on frozen features", "5", *_over_seeds(evaluated["fewshot"]["top1_5shot_seeds"])),
        ("digits: from scratch", "10", *_over_seeds(scratch)),
        ("digits: pre-trained, fine-tuned", "10", *_over_seeds(few)),
        ("   the difference that pre-training makes", "10", *_over_seeds([a - b for a, b in zip(few, scratch, strict=True)])),
        ("digits: pre-trained, fine-tuned", "all", _percent(top1("full")), ""),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _over_seeds(shares: list[float]) -> tuple[str, str]:
    """Return "mean ± standard deviation" over the seeds, in percent, and the list of the values."""
    mean, spread = 100 * statistics.mean(shares), 100 * statistics.stdev(shares)
    return f"{mean:.1f} ± {spread:.1f} %", ", ".join(f"{100 * share:.1f}" for share in shares)


def format_rows(rows: list[tuple[str, ...]]) -> str:
    """Return the table of results as text, with a line under its header."""
    header, *lines = format_table([HEADER, *rows]).splitlines()
    return "\n".join([header, "-" * len(header), *lines])


def write_report(page: Path, workdir: Path, rows: list[tuple[str, ...]]) -> None:
    """Write the page about the whole demo; `rows` are the rows of the table of results."""
    labels = {
        "pretrain": "Pre-training on glyphs",
        "few-0": "Fine-tuning on 10 digits per class, seed 0",
        "scratch-0": "From scratch on the same 100 digits, seed 0",
        "full": "Fine-tuning on all training digits",
    }
    runs: dict[str, Run] = {name: read_run(workdir / name, label) for name, label in labels.items()}
    notes = [
        "The 359 test digits are every fifth digit of the data set. The labeled digits come from the other 1438.",
        f"± is the standard deviation over {len(SEEDS)} seeds. Each seed chooses its own labeled images.",
    ]
    write_page(
        page,
        "A Mixer that learned letters, reading digits",
        "A small MLP-Mixer is pre-trained on letters and digits drawn from fonts, then fine-tuned on a few real handwritten "
        "digits, beside the same model trained on those digits alone.",
        [
            Section("Results", [Table(HEADER, rows, notes, emphasized=3)]),
            *(run_section(run) for run in runs.values()),
            *wall_time_sections(list(runs.values())),
            *training_images_sections([runs["pretrain"]]),
            *answers_sections([runs["few-0"]], pictures=True),
            units_section(runs["pretrain"]),
            records_section(list(runs.values())),
        ],
    )
