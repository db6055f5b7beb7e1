"""A sharded step is the unsharded one: losses on 8 devices, with fsdp 1, 2 and 8, are those of one device.

So they are with the TPU's form of the models' operations, which say where arrays are to be.
"""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.models.kernels import for_platform
from mixer_jax.parallel import make_mesh, to_global
from mixer_jax.training.program import make_program


def losses(config: ConfigDict, num_devices: int, fsdp: int, num_steps: int = 5) -> tuple[list[float], object]:
    mesh = make_mesh(fsdp, jax.devices()[:num_devices])
    program = make_program(config, total_steps=30, warmup_steps=3)
    step, _ = program.compile_step(mesh, max_labels=1)
    state = program.init_state(mesh, program.init_params(mesh))
    rng = np.random.default_rng(0)
    values = []
    for _ in range(num_steps):
        batch = {
            "image": rng.integers(256, size=program.image_shapes(mesh).shape, dtype=np.uint8),
            "labels": rng.integers(10, size=(config.batch_size, 1), dtype=np.int32),
            "mask": np.ones(config.batch_size, np.float32),
            "substituted": np.zeros(config.batch_size, np.int32),
        }
        state, metrics = step(state, to_global(batch, mesh))
        values.append(float(metrics["loss"]))
    return values, state


@pytest.fixture(scope="module")
def one_device() -> dict:
    return {}


@pytest.mark.parametrize(("platform", "fsdp"), [("cpu", 1), ("cpu", 2), ("cpu", 8), ("tpu", 1), ("tpu", 4)])
def test_losses_do_not_depend_on_how_the_state_is_spread(tiny_config, one_device: dict, platform: str, fsdp: int):
    with for_platform(platform):
        if platform not in one_device:
            one_device[platform], _ = losses(tiny_config, num_devices=1, fsdp=1)
        spread, state = losses(tiny_config, num_devices=8, fsdp=fsdp)
    np.testing.assert_allclose(spread, one_device[platform], rtol=1e-5)
    kernel = state.params["MixerBlock_0"]["channel_mixing"]["Dense_0"]["kernel"]
    moments = [x for name, x in named_arrays(state.opt_state).items() if name.endswith("channel_mixing/Dense_0/kernel")]
    for x in (kernel, *moments):  # each device has the part that it updates
        assert x.addressable_shards[0].data.size == kernel.size // 8
    assert moments[-1].sharding.mesh.shape == {"slice": 1, "data": 8 // fsdp, "fsdp": fsdp}
