"""timm's Mixer of the same size beside ours, in the same run: a process of another Python, which has PyTorch (timm.py)."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from ml_collections import ConfigDict

from benchmarks.peers.process import ROOT, peer
from mixer_jax.errors import UserError
from mixer_jax.models.registry import make_model
from mixer_jax.training.memory import resident_bytes

PYTHON = ROOT / ".venv-interop/bin/python"  # of `make test-interop`


@contextmanager
def timm(python: str, kind: str, config: ConfigDict) -> Iterator[tuple[Callable[[int], dict[str, float]], dict]]:
    """(a function of n: the {"clock", "cpu"} seconds that n steps take, what its start showed).

    JAX then takes of a GPU what it needs, in place of most of it at once, so that both fit.
    Raises UserError for a model that timm has not, or where that Python does not run it.
    """
    if config.model.family != "mixer":
        raise UserError(f"--beside-timm compares Mixers, and config.model.family is {config.model.family}.")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with peer(python, "timm", "test-interop", [json.dumps(settings(kind, config))]) as process:
        start = {"peak_memory_mib": resident_bytes("VmHWM", process.process_id) >> 20} | process.ready
        yield lambda steps: process.ask({"steps": steps}), start


def settings(kind: str, config: ConfigDict) -> dict:
    """What timm.py is to do, from the config; widths are those of the model that it makes."""
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
    """Raises UserError unless JAX computes on the same one device as PyTorch."""
    ours = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if ours != torch_device:
        raise UserError(
            f"--beside-timm: JAX computes on {ours} and PyTorch on {torch_device}. Install both for the same device, or put "
            "`JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=` in front of the command."
        )
    if ours == "cuda" and jax.device_count() > 1:
        raise UserError("--beside-timm compares one GPU: put CUDA_VISIBLE_DEVICES=0 in front of the command.")
