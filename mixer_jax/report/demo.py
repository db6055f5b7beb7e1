"""The demo: pre-training, fine-tuning and evaluation on small data, by the same commands that a user types, and a page.

Each stage is a run of train.py or evaluate.py in a folder of its own: started again, the demo goes on where it was.
"""

import statistics
import time
from pathlib import Path

from mixer_jax.app import stage
from mixer_jax.records import read_results
from mixer_jax.report.document import section, table, write_page
from mixer_jax.report.runs import Run, read_run
from mixer_jax.report.sections import (
    predictions_section,
    records_section,
    run_section,
    training_images_section,
    units_section,
)
from mixer_jax.text_table import format_table

SEEDS = (0, 1, 2)  # each chooses its own 10 labelled images a class


def run_demo(workdir: Path) -> None:
    """Runs all stages under `workdir`; prints the table of results and where the page is. Raises UserError if a stage fails."""
    start = time.monotonic()
    workdir = workdir.absolute()
    pretrained = workdir / "pretrain"
    stage("train.py", "configs/demo/pretrain.py", pretrained)
    stage("evaluate.py", "configs/demo/pretrain.py", workdir / "evaluate", f"--checkpoint={pretrained}")
    for seed in SEEDS:
        seeds = (f"--config.seed={seed}", f"--config.data.subset_seed={seed}")
        stage("train.py", "configs/demo/finetune.py:few", workdir / f"few-{seed}", f"--config.init_from={pretrained}", *seeds)
        stage("train.py", "configs/demo/finetune.py:scratch", workdir / f"scratch-{seed}", *seeds)
    stage("train.py", "configs/demo/finetune.py:full", workdir / "full", f"--config.init_from={pretrained}")

    rows = results_rows(workdir)
    page = workdir / "report.html"
    write_report(page, workdir, rows)
    print(f"\n{format_rows(rows)}\n\n{time.monotonic() - start:.0f} s. Curves, pictures and records: {page}")


HEADER = ("", "labels a class", "test top-1", "each seed")


def results_rows(workdir: Path) -> list[tuple[str, ...]]:
    """The table's rows, from the results.json of the stages."""

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
    """Mean ± standard deviation over the seeds, and each."""
    mean, spread = 100 * statistics.mean(shares), 100 * statistics.stdev(shares)
    return f"{mean:.1f} ± {spread:.1f} %", ", ".join(f"{100 * share:.1f}" for share in shares)


def format_rows(rows: list[tuple[str, ...]]) -> str:
    """Return the table as text, with a line under its header."""
    header, *lines = format_table([HEADER, *rows]).splitlines()
    return "\n".join([header, "-" * len(header), *lines])


def write_report(page: Path, workdir: Path, rows: list[tuple[str, ...]]) -> None:
    """The page of the whole demo."""
    labels = {
        "pretrain": "Pre-training on glyphs",
        "few-0": "Fine-tuning on 10 digits a class, seed 0",
        "scratch-0": "From scratch on the same 100 digits, seed 0",
        "full": "Fine-tuning on all training digits",
    }
    runs: dict[str, Run] = {name: read_run(workdir / name, label) for name, label in labels.items()}
    notes = [
        "Test digits are every fifth of the set, 359; the labelled ones come from the 1438 others.",
        f"± is the standard deviation over {len(SEEDS)} seeds; each chooses its own labelled images.",
    ]
    write_page(
        page,
        "A Mixer that learned letters, reading digits",
        "A small MLP-Mixer is pre-trained on letters and digits drawn from fonts, then fine-tuned on a few real handwritten "
        "digits, beside the same model trained on those digits alone.",
        [
            section("Results", table(HEADER, rows, notes=notes, emphasize=3)),
            *(run_section(run) for run in runs.values()),
            training_images_section(runs["pretrain"]),
            predictions_section(runs["few-0"]),
            units_section(runs["pretrain"]),
            records_section(list(runs.values())),
        ],
    )
