"""The tables of estimates that the README shows: which config fits on which pod, and the throughput column of the paper.

A table is a list of rows, kept in recorded/NAME.json and .csv with what it was estimated by; its Markdown is made from that. The
check compiles again what is recorded, and refuses what has become worse.
"""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from mixer_jax.app import read_config
from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.plan import PAPER_CORE_DAYS, PAPER_THROUGHPUT, plan
from mixer_jax.records import Progress

RECORDED = Path(__file__).parent / "recorded"
WORSE = 0.03  # of a recorded estimate: more than that is refused

FIT_TOPOLOGIES = ("v3:8x8", "v4:4x4x4")
LARGE_HEAD = ["--config.num_classes=21843"]
FIT_EXTRAS = (  # H/14 with ImageNet-21k's head, as far as the largest slices go
    ("configs/pretrain_jft300m.py:H/14", "v3:32x32", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
    ("configs/pretrain_jft300m.py:H/14", "v4:8x8x8", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
    ("configs/pretrain_jft300m.py:H/14", "v5e:16x16", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
)
SWEEP = (16, 32, 64, 128, 256)  # images a core; the paper too took each model's best batch size
SPEED_BATCHES = {"B/16": (64, 128, 256), "L/16": (64, 96, 144), "H/14": (64,)}  # in training, images a core


def fit(compiler: Compiler) -> dict:
    """Return the table of every pre-training config on FIT_TOPOLOGIES, and FIT_EXTRAS: whether it fits, time, core-days."""
    configs = [f"configs/{file}.py:{row}" for file, rows in PAPER_CORE_DAYS.items() for row in rows]
    programs = [(config, topology, []) for config in configs for topology in FIT_TOPOLOGIES] + list(FIT_EXTRAS)
    rows = []
    for config, topology, overrides in _progress(programs):
        rows.append(_fit_row(plan(compiler, config, read_config(config, overrides), topology), overrides))
    return _table(compiler, rows)


def _fit_row(figures: dict, overrides: list[str]) -> dict:
    row = {"config": figures["config"].removeprefix("configs/").replace(".py:", " "), "overrides": " ".join(overrides)}
    row |= {name: figures[name] for name in ("topology", "batch_per_core", "fits")}
    if not figures["fits"]:
        return row | {"over_gib": figures["over_gib"]}
    row |= {"memory_gib": round(figures["memory_gib"], 2), "memory_limit_gib": figures["memory_limit_gib"]}
    row |= {name: float(f"{figures[name]:.4g}") for name in ("images_per_sec_per_core", "step_seconds", "hours", "core_days")}
    return row | {"paper_core_days": figures["paper"]["core_days"]}


def throughput(compiler: Compiler) -> dict:
    """Return the table of inference on one TPU-v3 core, the best of SWEEP, beside the paper's column."""
    models = [(family, variant) for family, variants in PAPER_THROUGHPUT.items() for variant in variants]
    rows = []
    for family, variant in _progress(models):
        config = _inference(family, variant)
        sweep = [plan(compiler, "", config, "v3:2x2", stage="eval", batch_per_core=batch) for batch in SWEEP]
        fitting = [figures for figures in sweep if figures["fits"]]
        best = max(fitting, key=lambda figures: figures["images_per_sec_per_core"])
        estimate, paper = best["images_per_sec_per_core"], PAPER_THROUGHPUT[family][variant]
        rows.append(
            {"model": f"{family} {variant}", "batch_per_core": best["batch_per_core"], "estimate": float(f"{estimate:.4g}")}
            | {"paper": paper, "ratio": round(estimate / paper, 2), "limit_share": round(best["limit_share"], 2)}
        )
    mixers = [row for row in rows if row["model"].startswith("mixer")]
    return _table(compiler, rows) | {
        "rank_correlation": {name: _rank_correlation(some) for name, some in {"all": rows, "mixer": mixers}.items()}
    }


def speed(compiler: Compiler) -> dict:
    """Return the table of ours beside the reference model, inference and training, on 8 cores of TPU v3.

    Of computing alone, and with what the cores send each other. Loss and update are the same for both; images are in patches for
    ours, as it trains, and whole for the other. Memory is all of a core's: its part of the state, the batch, what a step makes
    (temporaries), and the program.
    """
    programs = [
        (variant, stage, batch)
        for variant, batches in SPEED_BATCHES.items()
        for stage, batch in [("eval", 64), *(("train", batch) for batch in batches)]
    ]
    rows = []
    for variant, stage, batch in _progress(programs):
        config = _inference("mixer", variant) if stage == "eval" else _training(variant)
        ours, reference = (
            plan(compiler, "", config, "v3:2x2", stage=stage, batch_per_core=batch, reference=is_reference)
            for is_reference in (False, True)
        )
        row = {"model": variant, "stage": {"eval": "inference", "train": "training step"}[stage], "batch_per_core": batch}
        for name, figures in {"ours": ours, "reference": reference}.items():
            row[name] = round(batch / figures["compute_seconds"])
            row[f"{name}_communicating"] = round(batch / figures["step_seconds"])
            row[f"{name}_memory_gib"] = round(figures["memory_gib"], 2)
            row[f"{name}_temporary_gib"] = round(figures["memory_parts_gib"]["activations_and_gradients"], 2)
        rows.append(
            row | {"ratio": round(row["ours"] / row["reference"], 2), "limit": round(ours["limit_images_per_sec_per_core"])}
        )
    return _table(compiler, rows)


TABLES = {"fit": fit, "throughput": throughput, "speed": speed}


def check(compiler: Compiler) -> Iterator[str]:
    """Compile the recorded programs of the fit table's first topology again, and yield a line for each.

    Raises UserError when one no longer fits, or its time is worse than recorded by more than WORSE.
    """
    recorded = [row for row in read("fit")["rows"] if row["topology"] == FIT_TOPOLOGIES[0]]
    worse = []
    for row in _progress(recorded):
        file, _, name = row["config"].partition(" ")
        config = f"configs/{file}.py:{name}"
        figures = plan(compiler, config, read_config(config, row["overrides"].split()), row["topology"])
        line, ratio = f"{config} on {row['topology']}: does not fit", math.inf if row["fits"] else 0.0
        if figures["fits"]:
            ratio = figures["step_seconds"] / row["step_seconds"] if row["fits"] else 0.0
            line = f"{config} on {row['topology']}: fits, step {ratio:.3f} x recorded"
        yield line
        worse += [line] if ratio > 1 + WORSE else []
    if worse:
        raise UserError(
            "Estimates have become worse than recorded (`python -m benchmarks.planning fit` records them anew):\n"
            + "\n".join(worse)
        )


def write(name: str, table: dict, folder: Path = RECORDED) -> None:
    """Write NAME.json and NAME.csv."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")
    fields = list(dict.fromkeys(field for row in table["rows"] for field in row))
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table["rows"])


def read(name: str, folder: Path = RECORDED) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def _inference(family: str, variant: str) -> ConfigDict:
    config = default_config()
    config.model.update(family=family, variant=variant, dtype="bfloat16")
    config.update(image_size=224, num_classes=1000)
    config.data.source = "tfds:imagenet2012"
    config.total.steps = 1
    return config


def _training(variant: str) -> ConfigDict:
    """Return the config of a training step with Adam, clipping and mixup."""
    config = _inference("mixer", variant)
    config.optimizer.clip_norm = 1.0
    config.augment.mixup = 0.5
    return config


def _rank_correlation(rows: list[dict]) -> float:
    """Return Spearman's rank correlation of estimate and paper."""
    from scipy.stats import spearmanr  # heavy, and most tools never need it

    return round(float(spearmanr([row["estimate"] for row in rows], [row["paper"] for row in rows]).statistic), 3)


def _table(compiler: Compiler, rows: list[dict]) -> dict:
    return {"estimated_by": compiler.version, "rows": rows}


def _progress(programs: list) -> Iterator:
    progress = Progress(len(programs), 0, "program")
    for done, program in enumerate(programs, 1):
        yield program
        progress.update(done)
    progress.close()
