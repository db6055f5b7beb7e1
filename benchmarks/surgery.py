"""Measures what a change of resolution costs, and how soon fine-tuning makes up for it: `python -m benchmarks.surgery`.

A trained Mixer is changed to other resolutions by each method that exists for them. It is evaluated at once, and again after some
steps of fine-tuning. The baseline is random token mixing, which is what remains without surgery. Every accuracy comes from
evaluate.py or train.py, run as a user would run them.
"""

import argparse
import sys
from pathlib import Path

import jax
import numpy as np

from mixer_jax import app
from mixer_jax.checkpoints.surgery import TOKEN_KERNEL, interpolate, tiles
from mixer_jax.checkpoints.weights import Weights, expected_signatures, load_weights, save_weights, tree_of
from mixer_jax.models.identify import ModelSpec
from mixer_jax.models.registry import make_model
from mixer_jax.records import read_results
from mixer_jax.text_table import print_figures
from mixer_jax.validation import bounded

CONFIG = "configs/demo/finetune.py:full"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.surgery", description=__doc__)
    parser.add_argument("--run", type=Path, default="runs/demo/full", help="a run of the demo's fine-tuning")
    parser.add_argument("--workdir", type=Path, default="runs/surgery", help="folder for the files and runs of this benchmark")
    parser.add_argument("--steps", type=bounded("in [1, 2^20]"), default=100, help="steps of fine-tuning")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    parser.set_defaults(tool=print_benchmark)
    return parser


def print_benchmark(arguments: argparse.Namespace) -> None:
    """Print the figures of the benchmark."""
    print_figures(benchmark_surgery(arguments.run, arguments.workdir.absolute(), arguments.steps), arguments.json)


def benchmark_surgery(run: Path, workdir: Path, num_steps: int) -> dict:
    """Return the errors of tiling, and the accuracy of each method at each image size.

    "tiles_relative_error" has the relative error of `tiles_error` for the model of `run`, a run of the demo, and for a random
    Mixer-B/16. "top1" has the accuracy on the demo's test digits by "SIZE px, METHOD", before and after `num_steps` steps of
    fine-tuning.

    Files and runs are written under `workdir`; those that are there already are used. Raises UserError and EnvironmentFault as
    app.stage does.
    """
    weights = load_weights(str(run))
    model = weights.model
    figures = {"run": str(run), "model": str(model), "steps": num_steps, "tiles_relative_error": {}, "top1": {}}
    for changed in (weights, _random_weights(ModelSpec("mixer", {"variant": "B/16"}, 1000, 224))):
        figures["tiles_relative_error"][f"{changed.model}, to {2 * changed.model.image_size}"] = tiles_error(changed, 2)
    patch = int(model.fields["variant"].split("/")[1])
    grid = model.image_size // patch
    for new_grid in sorted({grid, max(1, grid - 2), grid + 2, 2 * grid}):
        for method, changed in _changed_weights(weights, grid, new_grid):
            folder = workdir / f"{method}-{new_grid * patch}"
            file = folder / "start.npz"
            folder.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                save_weights(changed, str(file))
            side = new_grid * patch
            flags = _flags(changed, side)
            app.stage("evaluate.py", CONFIG, folder / "before", f"--checkpoint={file}", *flags, output=sys.stderr)
            start = (f"--config.init_from={file}", "--config.init_head=restore", f"--config.total.steps={num_steps}")
            app.stage("train.py", CONFIG, folder / "after", *start, *flags, output=sys.stderr)
            before, after = (read_results(folder / name)["evals"]["test"]["top1"] for name in ("before", "after"))
            figures["top1"][f"{side} px, {method}"] = {"before": round(before, 4), "after": round(after, 4)}
    return figures


def tiles_error(weights: Weights, k: int) -> float:
    """Return the relative error of the law of tiling, on a random image.

    The law says that the pooled features of a model tiled for k times the side are the mean of the original model's features over
    the k x k tiles of the image. The error is |features - mean| / |mean|.
    """
    model = weights.model
    side = model.image_size
    image = np.random.default_rng(0).uniform(-1, 1, (k * side, k * side, 3)).astype(np.float32)
    parts = image.reshape(k, side, k, side, 3).swapaxes(1, 2).reshape(k**2, side, side, 3)
    mean = _features(weights, parts).mean(0)
    features = _features(_replace_arrays(weights, tiles(weights.arrays, k)), image[None])[0]
    return float(np.linalg.norm(features - mean) / np.linalg.norm(mean))


def _features(weights: Weights, images: np.ndarray) -> np.ndarray:
    """Return the features [batch, channels] before the head."""
    model = make_model(weights.model.config(), weights.model.num_classes)
    return np.asarray(jax.jit(model.apply)({"params": tree_of(weights.arrays)}, images)[1]["pre_logits"])


def _random_weights(model: ModelSpec) -> Weights:
    rng = np.random.default_rng(0)
    signatures = expected_signatures(model)
    arrays = {name: rng.normal(scale=0.05, size=shape).astype(dtype) for name, (dtype, shape) in signatures.items()}
    return Weights(arrays, "random numbers", "none", 0, {})


def _changed_weights(weights: Weights, grid: int, new_grid: int):
    """Yield (method, weights) for each method that changes a grid of patches of side `grid` to one of side `new_grid`."""
    if new_grid == grid:
        yield "as it was", weights
        return
    k, remainder = divmod(new_grid, grid)
    if k > 1 and not remainder:
        yield "tiles", _replace_arrays(weights, tiles(weights.arrays, k))
    interpolated = _replace_arrays(weights, interpolate(weights.arrays, new_grid))
    yield "interpolated", interpolated
    rng = np.random.default_rng(0)
    arrays = {name: _initial_token_mixing(name, x, rng) for name, x in interpolated.arrays.items()}
    yield "random", _replace_arrays(weights, arrays)


def _initial_token_mixing(name: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a parameter of token mixing as before training, and any other as it is.

    Kernels are normal with variance 1 / inputs, biases are zero.
    """
    if "/token_mixing/" not in name:
        return x
    scale = x.shape[0] ** -0.5 if x.ndim == 2 else 0.0
    return rng.normal(scale=scale, size=x.shape).astype(x.dtype)


def _replace_arrays(weights: Weights, arrays: dict) -> Weights:
    return Weights(arrays, weights.path, weights.format, weights.step, {})


def _flags(weights: Weights, side: int) -> list[str]:
    """Return the flags with which the demo's config fits `weights` and images of `side` pixels."""
    tokens_mlp_dim = weights.arrays[TOKEN_KERNEL].shape[1]
    sizes = (f"--config.image_size={side}", f"--config.evals.test.resize_size={side}")
    return [*sizes, f"--config.model.tokens_mlp_dim={tokens_mlp_dim}"]


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
