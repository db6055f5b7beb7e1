"""Makes the tables of estimates that docs/planning.md shows.

    fit         whether and how fast each pre-training config runs on several pods
    fine_tuning the fine-tuning on ImageNet of each row of the paper's tables 2 and 3
    throughput  inference beside the throughput columns of these tables
    speed       our model beside the reference model

A table has {"estimated_by": the versions of the estimators, "rows": [...]}. It is kept in recorded/NAME.json and NAME.csv, and
its Markdown is made from that. `check` compiles recorded programs again, and refuses estimates that have become worse.
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
from mixer_jax.reproduction.fine_tuning import fine_tunings
from mixer_jax.reproduction.paper.exhibits import EXHIBITS
from mixer_jax.reproduction.recipes import is_cited_model, model_name, pretraining
from mixer_jax.reproduction.standing import image_size

RECORDED = Path(__file__).parent / "recorded"
MAX_SLOWDOWN = 0.03  # The relative increase of a recorded step time that `check` still accepts.

FIT_TOPOLOGIES = ("v3:8x8", "v4:4x4x4")
FINE_TUNING_TOPOLOGY = "v3:4x8"  # 8 of the 512 images on each core: all sizes fit, and little of the time is communication.
LARGE_HEAD = ["--config.num_classes=21843"]
FIT_EXTRAS = (  # H/14 with the head of ImageNet-21k, on the largest slices.
    ("configs/pretrain_jft300m.py:H/14", "v3:32x32", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
    ("configs/pretrain_jft300m.py:H/14", "v4:8x8x8", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
    ("configs/pretrain_jft300m.py:H/14", "v5e:16x16", [*LARGE_HEAD, "--config.parallel.fsdp=8"]),
)
BASELINES = ("pretrain_vit", "pretrain_bit")  # The configs of the paper's other models begin with this.
BASE_PIXELS = 224
SWEEP = (16, 32, 64, 128, 256)  # Images on each core. The paper also takes the best batch size of each model.
SWEEP_OF_LARGE_IMAGES = (4, 8, 16, 32, 64)  # Those of more than 224 pixels.
SPEED_BATCHES = {"B/16": (64, 128, 256), "L/16": (64, 96, 144), "H/14": (64,)}  # Images on each core in training.


def fit(compiler: Compiler) -> dict:
    """Return the fit table: every pre-training config on FIT_TOPOLOGIES, and FIT_EXTRAS, with memory, speed and core-days.

    The configs of the paper's other models are planned on the first topology alone.
    """
    configs = [f"configs/{file}.py:{row}" for file, rows in PAPER_CORE_DAYS.items() for row in rows]
    programs = [
        (config, topology, [])
        for config in configs
        for topology in (FIT_TOPOLOGIES[:1] if _is_baseline(config) else FIT_TOPOLOGIES)
    ]
    rows = []
    for config, topology, overrides in _progress(programs + list(FIT_EXTRAS)):
        figures = plan(compiler, config, read_config(config, overrides), topology)
        row = {"config": config.removeprefix("configs/").replace(".py:", " "), "overrides": " ".join(overrides)}
        paper = {"paper_core_days": figures["paper"]["core_days"]} if figures["fits"] else {}
        rows.append(row | _estimates(figures) | paper)
    return _table(compiler, rows)


def fine_tuning(compiler: Compiler) -> dict:
    """Return the fine-tuning table: the paper's fine-tuning on ImageNet of each model and size of its tables 2 and 3."""
    programs = {}
    for exhibit in ("table2", "table3"):
        for row in EXHIBITS[exhibit][0].rows:
            if not is_cited_model(row):
                pixels = image_size(exhibit, row)
                (recipe,) = fine_tunings(row, "imagenet", pretraining(row), pixels, "small")
                programs[model_name(row), pixels] = recipe
    rows = []
    for (model, pixels), recipe in _progress(sorted(programs.items())):
        config = read_config(recipe.config, list(recipe.overrides))
        figures = plan(compiler, recipe.config, config, FINE_TUNING_TOPOLOGY)
        rows.append({"model": model, "pixels": pixels} | _estimates(figures))
    return _table(compiler, rows)


def _estimates(figures: dict) -> dict:
    """Return what the tables of training keep of what `plan` returned."""
    row = {name: figures[name] for name in ("topology", "batch_per_core", "fits")}
    if not figures["fits"]:
        return row | {"over_gib": figures["over_gib"]}
    row |= {"memory_gib": round(figures["memory_gib"], 2), "memory_limit_gib": figures["memory_limit_gib"]}
    return row | {
        name: float(f"{figures[name]:.4g}") for name in ("images_per_sec_per_core", "step_seconds", "hours", "core_days")
    }


def _is_baseline(config: str) -> bool:
    return config.removeprefix("configs/").startswith(BASELINES)


def throughput(compiler: Compiler) -> dict:
    """Return the throughput table: inference on a TPU-v3 core at the best batch size of a sweep, beside the paper's figures."""
    models = [(*kind, variant, paper) for kind, variants in PAPER_THROUGHPUT.items() for variant, paper in variants.items()]
    rows = []
    for family, pixels, variant, paper in _progress(models):
        config = _inference(family, variant, pixels)
        batches = SWEEP if pixels == BASE_PIXELS else SWEEP_OF_LARGE_IMAGES
        sweep = [plan(compiler, "", config, "v3:2x2", stage="eval", batch_per_core=batch) for batch in batches]
        fitting = [figures for figures in sweep if figures["fits"]]
        best = max(fitting, key=lambda figures: figures["images_per_sec_per_core"])
        estimate = best["images_per_sec_per_core"]
        rows.append(
            {"model": f"{family} {variant}", "pixels": pixels, "batch_per_core": best["batch_per_core"]}
            | {"estimate": float(f"{estimate:.4g}"), "paper": paper}
            | {"ratio": round(estimate / paper, 2), "limit_share": round(best["limit_share"], 2)}
        )
    mixers = [row for row in rows if row["model"].startswith("mixer")]
    return _table(compiler, rows) | {
        "rank_correlation": {name: _rank_correlation(subset) for name, subset in {"all": rows, "mixer": mixers}.items()}
    }


def speed(compiler: Compiler) -> dict:
    """Return the speed table: our model beside the reference model, in inference and training, on 8 cores of TPU v3.

    "ours" and "reference" count computation only; "..._communicating" include what the cores send each other. Loss and update are
    the same for both. Images are cut into patches for ours, as in its training, and whole for the reference. The memory is all
    that a core uses: its part of the state, the batch, the temporaries of a step, and the program.
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


TABLES = {"fit": fit, "fine_tuning": fine_tuning, "throughput": throughput, "speed": speed}


def check(compiler: Compiler) -> Iterator[str]:
    """Compile the Mixers of the fit table's first topology again, and yield one line for each.

    At the end, raises UserError if one no longer fits, or if its step takes longer than recorded by more than MAX_SLOWDOWN.
    """
    rows = read("fit")["rows"]
    recorded = [row for row in rows if row["topology"] == FIT_TOPOLOGIES[0] and not _is_baseline(row["config"])]
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
        worse += [line] if ratio > 1 + MAX_SLOWDOWN else []
    if worse:
        raise UserError(
            "Estimates have become worse than recorded (`python -m benchmarks.planning fit` records them anew):\n"
            + "\n".join(worse)
        )


def write(name: str, table: dict, folder: Path = RECORDED) -> None:
    """Write the table to NAME.json and NAME.csv in `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")
    fields = list(dict.fromkeys(field for row in table["rows"] for field in row))
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table["rows"])


def read(name: str, folder: Path = RECORDED) -> dict:
    """Return the table that `write` has written to `folder`."""
    return json.loads((folder / f"{name}.json").read_text())


def _inference(family: str, variant: str, pixels: int = BASE_PIXELS) -> ConfigDict:
    """Return a config for inference in bfloat16, with 1000 classes, of a model that was pre-trained at 224 pixels."""
    config = default_config()
    config.model.update(family=family, variant=variant, dtype="bfloat16")
    config.update(image_size=pixels, num_classes=1000)
    if pixels != BASE_PIXELS:
        config.model.tile_size = BASE_PIXELS
    config.data.source = "tfds:imagenet2012"
    config.total.steps = 1
    return config


def _training(variant: str) -> ConfigDict:
    """Return a config for a training step of a Mixer with Adam, clipping and mixup."""
    config = _inference("mixer", variant)
    config.optimizer.clip_norm = 1.0
    config.augment.mixup = 0.5
    return config


def _rank_correlation(rows: list[dict]) -> float:
    """Return Spearman's rank correlation of the estimates and the paper's figures."""
    from scipy.stats import spearmanr  # It is heavy, and most tools never need it.

    return round(float(spearmanr([row["estimate"] for row in rows], [row["paper"] for row in rows]).statistic), 3)


def _table(compiler: Compiler, rows: list[dict]) -> dict:
    return {"estimated_by": compiler.version, "rows": rows}


def _progress(programs: list) -> Iterator:
    """Yield the programs, and show on standard error how many are done."""
    progress = Progress(len(programs), 0, "program")
    for done, program in enumerate(programs, 1):
        yield program
        progress.update(done)
    progress.close()
