"""The tables of estimates that the README shows: which config fits on which pod, and the throughput column of the paper.

A table is a list of rows, kept in recorded/NAME.json and .csv with what it was estimated by; its Markdown is made from that. The
check compiles again what is recorded, and refuses what has become worse.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.plan import plan
from mixer_jax.planning.recipe import CORE_DAYS, THROUGHPUT
from mixer_jax.records import Progress

RECORDED = Path(__file__).parent / "recorded"
WORSE = 0.03  # of a recorded estimate: more than that is refused

ReadConfig = Callable[[str, list[str]], ConfigDict]
"""(FILE.py:ARG, overrides) -> config: app.read_config."""

FIT_TOPOLOGIES = ("v3:8x8", "v4:4x4x4")
LARGE_HEAD = ["--config.num_classes=21843"]
FIT_EXTRAS = (  # H/14 with ImageNet-21k's head, as far as the largest slices go
    ("configs/pretrain_jft300m.py:H/14", "v3:32x32", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
    ("configs/pretrain_jft300m.py:H/14", "v4:8x8x8", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
    ("configs/pretrain_jft300m.py:H/14", "v5e:16x16", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
)
SWEEP = (16, 32, 64, 128, 256)  # images a core; the paper too took each model's best batch size
SPEED_BATCHES = {"B/16": (64, 128, 256), "L/16": (64, 96, 144), "H/14": (64,)}  # in training, images a core


def fit(compiler: Compiler, read_config: ReadConfig) -> dict:
    """Every pre-training config on FIT_TOPOLOGIES, and FIT_EXTRAS: fits or by how much not, time, core-days."""
    configs = [f"configs/{file}.py:{row}" for file, rows in CORE_DAYS.items() for row in rows]
    asked = [(place, topology, []) for place in configs for topology in FIT_TOPOLOGIES] + list(FIT_EXTRAS)
    rows = []
    for place, topology, overrides in _progress(asked):
        found = plan(compiler, place, read_config(place, overrides), topology)
        rows.append(_fit_row(found, overrides))
    return _table(compiler, rows)


def _fit_row(found: dict, overrides: list[str]) -> dict:
    row = {"config": found["config"].removeprefix("configs/").replace(".py:", " "), "overrides": " ".join(overrides)}
    row |= {name: found[name] for name in ("topology", "batch_per_core", "fits")}
    if not found["fits"]:
        return row | {"over_gib": found["over_gib"]}
    row |= {"memory_gib": round(found["memory_gib"], 2), "memory_limit_gib": found["memory_limit_gib"]}
    row |= {name: float(f"{found[name]:.4g}") for name in ("images_per_sec_per_core", "step_seconds", "hours", "core_days")}
    return row | {"paper_core_days": found["paper"]["core_days"]}


def throughput(compiler: Compiler, read_config: ReadConfig) -> dict:
    """Inference of every model of the paper's column on one TPU-v3 core, the best of SWEEP, beside what the paper measured."""
    models = [(family, variant) for family, variants in THROUGHPUT.items() for variant in variants]
    rows = []
    for family, variant in _progress(models):
        found = [plan(compiler, "", _inference(family, variant), "v3:2x2", stage="eval", batch_per_core=batch) for batch in SWEEP]
        best = max((each for each in found if each["fits"]), key=lambda each: each["images_per_sec_per_core"])
        estimate, paper = best["images_per_sec_per_core"], THROUGHPUT[family][variant]
        rows.append(
            {"model": f"{family} {variant}", "batch_per_core": best["batch_per_core"], "estimate": float(f"{estimate:.4g}")}
            | {"paper": paper, "ratio": round(estimate / paper, 2), "limit_share": round(best["limit_share"], 2)}
        )
    mixers = [row for row in rows if row["model"].startswith("mixer")]
    return _table(compiler, rows) | {
        "rank_correlation": {name: _rank_correlation(some) for name, some in {"all": rows, "mixer": mixers}.items()}
    }


def speed(compiler: Compiler, read_config: ReadConfig) -> dict:
    """Ours beside the textbook's model (models/reference.py), inference and training, on 8 cores of TPU v3.

    Of computing alone, and with what the cores send each other. Loss and update are the same for both; images are in patches for
    ours, as it trains, and whole for the other. Memory is all of a core's: its part of the state, the batch, what a step makes
    (temporaries), and the program.
    """
    asked = [
        (variant, stage, batch)
        for variant, batches in SPEED_BATCHES.items()
        for stage, batch in [("eval", 64), *(("train", batch) for batch in batches)]
    ]
    rows = []
    for variant, stage, batch in _progress(asked):
        config = _inference("mixer", variant) if stage == "eval" else _training(variant)
        ours, textbook = (
            plan(compiler, "", config, "v3:2x2", stage=stage, batch_per_core=batch, reference=reference)
            for reference in (False, True)
        )
        row = {"model": variant, "stage": {"eval": "inference", "train": "training step"}[stage], "batch_per_core": batch}
        for name, found in {"ours": ours, "textbook": textbook}.items():
            row[name] = round(batch / found["compute_seconds"])
            row[f"{name}_communicating"] = round(batch / found["step_seconds"])
            row[f"{name}_memory_gib"] = round(found["memory_gib"], 2)
            row[f"{name}_temporary_gib"] = round(found["memory_parts_gib"]["activations_and_gradients"], 2)
        rows.append(
            row | {"ratio": round(row["ours"] / row["textbook"], 2), "limit": round(ours["limit_images_per_sec_per_core"])}
        )
    return _table(compiler, rows)


TABLES = {"fit": fit, "throughput": throughput, "speed": speed}


def check(compiler: Compiler, read_config: ReadConfig) -> Iterator[str]:
    """Compiles the recorded programs of the fit table's first topology again. Yields a line for each.

    Raises UserError when one no longer fits, or its time is worse than recorded by more than WORSE.
    """
    recorded = [row for row in read("fit")["rows"] if row["topology"] == FIT_TOPOLOGIES[0]]
    worse = []
    for row in _progress(recorded):
        file, _, name = row["config"].partition(" ")
        place = f"configs/{file}.py:{name}"
        found = plan(compiler, place, read_config(place, row["overrides"].split()), row["topology"])
        line, ratio = f"{place} on {row['topology']}: does not fit", math.inf if row["fits"] else 0.0
        if found["fits"]:
            ratio = found["step_seconds"] / row["step_seconds"] if row["fits"] else 0.0
            line = f"{place} on {row['topology']}: fits, step {ratio:.3f} x recorded"
        yield line
        worse += [line] if ratio > 1 + WORSE else []
    if worse:
        raise UserError("Estimates have become worse than recorded (plan --fit records them anew):\n" + "\n".join(worse))


def write(name: str, table: dict, folder: Path = RECORDED) -> None:
    """NAME.json and NAME.csv."""
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
    """With Adam, clipping and mixup."""
    config = _inference("mixer", variant)
    config.optimizer.clip_norm = 1.0
    config.augment.mixup = 0.5
    return config


def _rank_correlation(rows: list[dict]) -> float:
    """Spearman's, of estimate and paper."""
    from scipy.stats import spearmanr  # heavy, and most tools never need it

    return round(float(spearmanr([row["estimate"] for row in rows], [row["paper"] for row in rows]).statistic), 3)


def _table(compiler: Compiler, rows: list[dict]) -> dict:
    return {"estimated_by": compiler.version, "rows": rows}


def _progress(asked: list) -> Iterator:
    progress = Progress(len(asked), 0, "program")
    for done, each in enumerate(asked, 1):
        yield each
        progress.update(done)
    progress.close()
