"""Times timm's Mixer in an environment of its own. No other process of ours imports this file, or PyTorch.

    python -m benchmarks.peers.timm SETTINGS

beside_timm.py starts this program. SETTINGS is JSON with what the config says about model, batch, loss and optimizer. The answer
to the question START is the device and what the start cost. The answer to a number of steps is the seconds that these took.

A step does the same work as ours. The uint8 images are on the device already, and are scaled to [-1, 1] there. Then come mixup if
the config has it, the loss against soft targets, clipping, and the update: AdamW, or SGD with momentum, whose weight decay
PyTorch adds to the gradient (ours is decoupled). All parameters decay: timm's recipes exclude biases, which does not save work.

Everything that makes PyTorch fast is on: all cores or the GPU, fused optimizers, the config's model.dtype by autocast (for
float32 on a GPU TF32, as in XLA), and on a GPU torch.compile. GELU is timm's own, which is the exact one.
"""

import contextlib
import json
import os
import random
import sys
import time

import torch
from torch.nn import functional

from benchmarks.peers.process import START
from benchmarks.peers.torchvision_standin import standing_in
from mixer_jax.worker_process import serve

with standing_in():
    from timm.models.mlp_mixer import MlpMixer

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


def size(settings: dict) -> dict:
    """Return the arguments of MlpMixer. It rounds ratio x width down, so half a unit is added to each width."""
    ratios = [(settings[field] + 0.5) / settings["hidden_dim"] for field in ("tokens_mlp_dim", "channels_mlp_dim")]
    unchanged = {field: settings[field] for field in ("num_classes", "patch_size", "num_blocks")}
    return unchanged | {"img_size": settings["image_size"], "embed_dim": settings["hidden_dim"], "mlp_ratio": ratios}


def make_optimizer(settings: dict, parameters) -> torch.optim.Optimizer:
    """Return the config's optimizer with a constant learning rate."""
    rate = 1e-6  # It is so small that the parameters stay ordinary numbers, as in our contestants.
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=settings["momentum"], weight_decay=settings["weight_decay"], fused=True)
    betas = settings["b1"], settings["b2"]
    return torch.optim.AdamW(parameters, rate, betas, settings["eps"], settings["weight_decay"], fused=True)


def make_run_once(settings: dict):
    """Return a function that does one step or predicts one batch, as settings["kind"] says."""
    model = MlpMixer(**size(settings)).to(DEVICE).train(settings["kind"] == "step")
    forward = torch.compile(model) if CUDA else model
    shape = (settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    pixels = torch.randint(256, shape, dtype=torch.uint8, device=DEVICE)
    labels = torch.randint(settings["num_classes"], shape[:1], device=DEVICE)
    bfloat16 = settings["dtype"] == "bfloat16"

    def logits(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(DEVICE, torch.bfloat16) if bfloat16 else contextlib.nullcontext():
            return forward(images)

    def normalized() -> torch.Tensor:
        return pixels.float() / 127.5 - 1

    @torch.inference_mode()
    def predict() -> None:
        logits(normalized()).float()

    if settings["kind"] == "predict":
        return predict
    parameters = list(model.parameters())
    optimizer = make_optimizer(settings, parameters)

    def train() -> None:
        images, targets = normalized(), functional.one_hot(labels, settings["num_classes"]).float()
        if p := settings["mixup"]:
            drawn = random.betavariate(p, p)
            share = max(drawn, 1 - drawn)
            images, targets = (share * x + (1 - share) * x.roll(1, 0) for x in (images, targets))
        x = logits(images).float()
        if settings["loss"] == "softmax":
            loss = functional.cross_entropy(x, targets, label_smoothing=settings["label_smoothing"])
        else:
            loss = functional.binary_cross_entropy_with_logits(x, targets, reduction="sum") / len(x)
        optimizer.zero_grad()
        loss.backward()
        if settings["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(parameters, settings["clip_norm"])
        optimizer.step()

    return train


def main(settings: dict) -> None:
    """Answer questions about the time of steps until standard input ends."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high" if CUDA else "highest")
    run_once = make_run_once(settings)

    def turn(count: int) -> dict[str, float]:
        start, cpu_start = time.perf_counter(), time.process_time()
        for _ in range(count):
            run_once()
        if CUDA:
            torch.cuda.synchronize()
        return {"clock": time.perf_counter() - start, "cpu": time.process_time() - cpu_start}

    first, later = turn(1)["clock"], turn(2)["clock"] / 2
    facts = {"device": DEVICE}
    if CUDA:
        facts |= {"compile_seconds": round(first - later, 2), "peak_memory_mib": torch.cuda.max_memory_allocated() >> 20}
    serve(lambda question: facts if question == START else turn(question))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
