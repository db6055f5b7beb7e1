"""What a change of resolution costs, and how soon fine-tuning makes up for it: `python -m benchmarks.surgery`.

A trained Mixer is changed to other resolutions by each method that there is for them, evaluated at once, and again after some
steps of fine-tuning. Beside them: token mixing at random, which is what is left without surgery. Every figure comes from
evaluate.py or train.py, as a user would run them.
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.surgery", description=__doc__)
    parser.add_argument("--run", type=Path, default="runs/demo/full", help="a run of the demo's fine-tuning")
    parser.add_argument("--workdir", type=Path, default="runs/surgery", help="folder of its files and runs")
    parser.add_argument("--steps", type=bounded("in [1, 2^20]"), default=100, help="of fine-tuning")
    parser.add_argument("--json", action="store_true", help="one line of JSON, for programs")
    parser.set_defaults(tool=print_benchmark)
    return parser


def print_benchmark(arguments: argparse.Namespace) -> None:
    """Print the figures."""
    print_figures(benchmark_surgery(arguments.run, arguments.workdir.absolute(), arguments.steps), arguments.json)


def benchmark_surgery(run: Path, workdir: Path, num_steps: int) -> dict:
    """Return {"tiles_relative_error": of the model of a run of the demo and of a random B/16, "top1": {"image size, method":
    on the demo's test digits, before and after `num_steps` steps}}.

    It writes its files and runs under `workdir`, and goes on from what is there. Raises UserError as its stages do.
    """
    weights = load_weights(str(run))
    model = weights.model
    figures = {"run": str(run), "model": str(model), "steps": num_steps, "tiles_relative_error": {}, "top1": {}}
    for changed in (weights, _random(ModelSpec("mixer", {"variant": "B/16"}, 1000, 224))):
        figures["tiles_relative_error"][f"{changed.model}, to {2 * changed.model.image_size}"] = tiles_error(changed, 2)
    patch = int(model.fields["variant"].split("/")[1])
    grid = model.image_size // patch
    for new_grid in sorted({grid, max(1, grid - 2), grid + 2, 2 * grid}):
        for method, changed in _methods(weights, grid, new_grid):
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
    """Return the distance of pooled features at k times the side from the mean over k x k tiles, relative to that mean."""
    model = weights.model
    side = model.image_size
    image = np.random.default_rng(0).uniform(-1, 1, (k * side, k * side, 3)).astype(np.float32)
    parts = image.reshape(k, side, k, side, 3).swapaxes(1, 2).reshape(k**2, side, side, 3)
    mean = _features(weights, parts).mean(0)
    return float(
        np.linalg.norm(_features(_with(weights, tiles(weights.arrays, k)), image[None])[0] - mean) / np.linalg.norm(mean)
    )


def _features(weights: Weights, images: np.ndarray) -> np.ndarray:
    model = make_model(weights.model.config(), weights.model.num_classes)
    return np.asarray(jax.jit(model.apply)({"params": tree_of(weights.arrays)}, images)[1]["pre_logits"])


def _random(model: ModelSpec) -> Weights:
    rng = np.random.default_rng(0)
    signatures = expected_signatures(model)
    arrays = {name: rng.normal(scale=0.05, size=shape).astype(dtype) for name, (dtype, shape) in signatures.items()}
    return Weights(arrays, "random numbers", "none", 0, {})


def _methods(weights: Weights, grid: int, new_grid: int):
    if new_grid == grid:
        yield "as it was", weights
        return
    k, rest = divmod(new_grid, grid)
    if k > 1 and not rest:
        yield "tiles", _with(weights, tiles(weights.arrays, k))
    changed = _with(weights, interpolate(weights.arrays, new_grid))
    yield "interpolated", changed
    rng = np.random.default_rng(0)
    yield "random", _with(weights, {name: _drawn(name, x, rng) for name, x in changed.arrays.items()})


def _drawn(name: str, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return token mixing as at the start of training: kernels of variance 1 / inputs, biases of zero; anything else as it is."""
    if "/token_mixing/" not in name:
        return x
    scale = x.shape[0] ** -0.5 if x.ndim == 2 else 0.0
    return rng.normal(scale=scale, size=x.shape).astype(x.dtype)


def _with(weights: Weights, arrays: dict) -> Weights:
    return Weights(arrays, weights.path, weights.format, weights.step, {})


def _flags(weights: Weights, side: int) -> list[str]:
    width = weights.arrays[TOKEN_KERNEL].shape[1]
    sizes = (f"--config.image_size={side}", f"--config.evals.test.resize_size={side}")
    return [*sizes, f"--config.model.tokens_mlp_dim={width}"]


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
