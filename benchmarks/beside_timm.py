"""Compares timm's Mixer with ours of the same size, in one run: `python -m benchmarks.beside_timm step | predict`.

timm runs in a process of another Python, which has PyTorch (peers/timm.py). The options and figures are those of
`python -m mixer_jax bench step`.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from ml_collections import ConfigDict

from benchmarks.peers.process import ROOT, start_peer
from mixer_jax import app
from mixer_jax.bench import step
from mixer_jax.bench.cli import MEASURED, add_step_options
from mixer_jax.errors import UserError
from mixer_jax.models.registry import make_model
from mixer_jax.text_table import print_figures
from mixer_jax.training.memory import resident_bytes
from mixer_jax.validation import validate

PYTHON = ROOT / ".venv-interop/bin/python"  # `make test-interop` installs it.


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside_timm", description=__doc__)
    parser.add_argument("kind", choices=MEASURED, help="time the training step, or prediction")
    add_step_options(parser)
    parser.add_argument(
        "--python", default=str(PYTHON), metavar="FILE", help="Python that runs timm; `make test-interop` installs one"
    )
    parser.set_defaults(tool=compare)
    return parser


def compare(arguments: argparse.Namespace) -> None:
    """Print the figures of `python -m mixer_jax bench step` or `predict`, with timm as one more contestant."""
    config = app.read_config(arguments.config, arguments.overrides)
    validate(config)
    with timm(arguments.python, arguments.kind, config) as (turn, start):
        require_same_device(start.pop("device"))
        figures = step.benchmark(arguments.kind, config, arguments.steps, {"timm": (turn, start)})
    print_figures(figures, arguments.json, step.format_benchmark)


@contextmanager
def timm(python: str, kind: str, config: ConfigDict) -> Iterator[tuple[step.Turn, dict]]:
    """Start timm with `python`, and yield (the turn that times it, the figures of its start).

    From here on, JAX allocates GPU memory when it needs it, instead of most of it at once, so that both fit on one GPU.

    Raises UserError for a model that is not a Mixer, or if `python` cannot run timm.
    """
    if config.model.family != "mixer":
        raise UserError(f"timm's Mixer is compared with Mixers, and config.model.family is {config.model.family}.")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with start_peer(python, "timm", "test-interop", [json.dumps(settings(kind, config))]) as peer:
        start = {"peak_memory_mib": resident_bytes("VmHWM", peer.process_id) >> 20} | peer.facts
        yield lambda num_steps: step.Seconds(**peer.ask(num_steps)), start


def settings(kind: str, config: ConfigDict) -> dict:
    """Return the settings for peers/timm.py, from the config. The widths are those of the model that the config makes."""
    model = make_model(config.model, config.num_classes)
    size = {field: getattr(model.size, field) for field in ("num_blocks", "hidden_dim", "tokens_mlp_dim", "channels_mlp_dim")}
    optimizer = config.optimizer
    fields = {field: optimizer[field] for field in ("b1", "b2", "eps", "momentum", "weight_decay", "clip_norm")}
    return size | fields | {
        "kind": kind, "patch_size": model.patch_size, "image_size": config.image_size, "num_classes": config.num_classes,
        "batch_size": config.batch_size, "dtype": config.model.dtype, "mixup": config.augment.mixup, "loss": config.loss.kind,
        "label_smoothing": config.loss.label_smoothing, "optimizer": optimizer.name,
    }  # fmt: skip


def require_same_device(torch_device: str) -> None:
    """Check that JAX and PyTorch compute on the same single device. Raises UserError if they do not."""
    ours = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if ours != torch_device:
        raise UserError(
            f"JAX computes on {ours} and PyTorch on {torch_device}. Install both for the same device, or put "
            "`JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=` in front of the command."
        )
    if ours == "cuda" and jax.device_count() > 1:
        raise UserError("timm is compared on one GPU: put CUDA_VISIBLE_DEVICES=0 in front of the command.")


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
