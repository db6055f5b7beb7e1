"""The devices of small pods send each other what one expects. These tests need the TPU compiler (`make plan-check`).

They compile a Mixer of two blocks of S/32 without mixup, and look only at whole kernels, which hold 99 % of the parameters.
"""

import functools

import pytest

from mixer_jax.config import default_config
from mixer_jax.planning.compiler import Compiler
from mixer_jax.planning.plan import plan

KERNELS = 32 * 32 * 3 * 512 + 2 * (2 * 49 * 256 + 2 * 512 * 2048) + 512 * 1024  # numbers: stem, two blocks, head


@pytest.fixture(scope="module")
def compiled():
    """Return a function that compiles a program, and returns {kind of collective: {"count", "bytes", bytes of each dtype}}."""
    with Compiler() as compiler:

        @functools.cache
        def compiled(topology: str, num_slices: int = 1, fsdp: int = 1, accumulation_steps: int = 1, stage="train") -> dict:
            config = default_config()
            config.model.update(variant="S/32", num_blocks=2, dtype="bfloat16")
            config.update(image_size=224, num_classes=1024, accumulation_steps=accumulation_steps)
            config.data.source, config.total.steps, config.parallel.fsdp = "tfds:imagenet2012", 1, fsdp
            return plan(compiler, "", config, topology, num_slices=num_slices, stage=stage, batch_per_core=16)["collectives"]

        yield compiled


def numbers(collective: dict) -> float:
    """Return how many float32 and bfloat16 numbers the collective moves."""
    return collective.get("f32", 0) / 4 + collective.get("bf16", 0) / 2


def reduced(found: dict) -> float:
    return numbers(found["all-reduce"]) + numbers(found.get("reduce-scatter", {}))


@pytest.mark.parametrize(("topology", "scatters"), [("v3:2x2", False), ("v4:2x2x1", True)])
@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_a_step_reduces_every_gradient_and_gathers_every_kernel_once_whatever_the_accumulation(
    compiled, topology, scatters, accumulation_steps
):
    found = compiled(topology, accumulation_steps=accumulation_steps)
    assert set(found) == {"all-reduce", "all-gather"} | ({"reduce-scatter"} if scatters else set())
    assert KERNELS < reduced(found) < 1.02 * KERNELS
    assert 0.99 * KERNELS < numbers(found["all-gather"]) < 1.02 * KERNELS
    assert found["all-gather"]["bf16"] > 1.9 * 0.9 * KERNELS  # bytes: cast, then gathered
    if scatters:
        assert numbers(found["reduce-scatter"]) > 0.7 * KERNELS
    if accumulation_steps > 1:  # what is summed over parts is float32, and summed over devices after that
        assert sum(found[kind].get("bf16", 0) for kind in found if kind != "all-gather") == 0


def test_with_fsdp_a_step_gathers_more_and_reduces_every_gradient_once(compiled):
    found = compiled("v4:2x2x1", fsdp=4)
    assert numbers(found["all-gather"]) < 2.1 * KERNELS  # for the forward pass, and some again for the backward
    assert numbers(found["all-gather"]) > 1.1 * numbers(compiled("v4:2x2x1")["all-gather"])
    assert numbers(found["reduce-scatter"]) > 0.5 * KERNELS
    assert reduced(found) < 1.02 * KERNELS


def test_inference_with_fsdp_gathers_every_kernel_once_and_sends_nothing_else(compiled):
    found = compiled("v4:2x2x1", fsdp=4, stage="eval")
    assert set(found) == {"all-gather"}
    assert 0.9 * KERNELS < numbers(found["all-gather"]) < 1.02 * KERNELS


def test_slices_send_each_other_no_more_than_their_share_of_the_gradients(compiled):
    found = compiled("v4:2x2x1", num_slices=2)  # of four devices each: scattered within a slice, summed between
    assert KERNELS < reduced(found) < 1.02 * KERNELS
    assert KERNELS / 4 < numbers(found["send"]) < 1.05 * KERNELS / 4
    assert 0.99 * KERNELS < numbers(found["all-gather"]) < 1.02 * KERNELS
