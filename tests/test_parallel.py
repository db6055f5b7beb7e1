"""What each device holds: the mesh, the rules for parameters and optimizer state, and the examples of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mixer_jax.checkpoints.digest import named_arrays
from mixer_jax.config import default_config
from mixer_jax.errors import UserError
from mixer_jax.models.registry import make_model
from mixer_jax.parallel import (
    GATHERED_AXES,
    JAX_OPTIONS,
    STATE_AXES,
    batch_sharding,
    broadcast_from_writer,
    gather_for_evaluation,
    gather_params,
    local_batch_indices,
    local_device_facts,
    make_mesh,
    path_name,
    replicated,
    scatter_grads,
    state_sharding,
    to_global,
    to_host,
)
from mixer_jax.training.optimizer import make_optimizer
from mixer_jax.training.state import init_params, init_state


def specs_of(tree, fsdp: int, axes: tuple[str, ...] = STATE_AXES) -> dict[str, tuple]:
    """Return {path of an array: for each of its axes, the axes of the mesh with more than one device, joined by spaces}."""
    mesh = make_mesh(fsdp)

    def names(dim: str | tuple[str, ...] | None) -> str:
        return " ".join(axis for axis in ((dim,) if isinstance(dim, str) else dim or ()) if mesh.shape[axis] > 1)

    shardings = jax.tree_util.tree_flatten_with_path(state_sharding(tree, mesh, axes))[0]
    return {path_name(path): tuple(map(names, sharding.spec)) for path, sharding in shardings}


@pytest.mark.parametrize("fsdp", [1, 2, 4, 8])
def test_the_mesh_has_all_devices_in_groups_of_fsdp(fsdp):
    mesh = make_mesh(fsdp)
    assert (dict(mesh.shape), mesh.size) == ({"slice": 1, "data": 8 // fsdp, "fsdp": fsdp}, 8)
    assert set(mesh.devices.ravel()) == set(jax.devices())


@pytest.mark.parametrize(("fsdp", "devices"), [(3, 8), (16, 8), (2, 1), (4, 6)])
def test_groups_that_do_not_divide_the_devices_are_refused(fsdp, devices):
    with pytest.raises(UserError, match=rf"config\.parallel\.fsdp is {fsdp}.*{devices}"):
        make_mesh(fsdp, jax.devices()[:devices])


def test_one_host_of_a_pod_slice_that_was_not_joined_to_the_others_is_refused(monkeypatch):
    monkeypatch.setattr("mixer_jax.parallel.is_one_of_several_tpu_hosts", lambda: True)
    with pytest.raises(UserError, match="--distributed"):
        make_mesh(1)


@pytest.mark.parametrize(
    ("name", "shape", "spec"),
    [
        ("stem/kernel", (16, 16, 3, 768), ("", "", "", "fsdp data")),
        ("MixerBlock_0/token_mixing/Dense_0/kernel", (196, 384), ("data", "fsdp")),
        # Both axes can be split equally far, so the first is.
        ("MixerBlock_0/channel_mixing/Dense_0/kernel", (768, 3072), ("data", "fsdp")),
        ("MixerBlock_0/channel_mixing/Dense_0/kernel", (769, 3072), ("", "fsdp data")),
        ("head/kernel", (768, 1000), ("data", "fsdp")),
        ("head/kernel", (768, 1001), ("fsdp data", "")),
        ("head/kernel", (6, 7), ("data", "")),  # fsdp divides no axis.
        ("head/kernel", (9, 7), ("", "")),
        ("head/bias", (1000,), ()),
        ("MixerBlock_0/LayerNorm_0/scale", (768,), ()),
        ("step", (), ()),
    ],
)
def test_a_kernel_is_split_along_fsdp_then_data_where_most_is_left_to_divide_and_nothing_else_is_split(name, shape, spec):
    tree = jax.ShapeDtypeStruct(shape, jnp.float32)
    for key in reversed(name.split("/")):
        tree = {key: tree}
    found, gathered = specs_of(tree, 4)[name], specs_of(tree, 4, GATHERED_AXES)[name]
    assert found == spec if any(spec) else not any(found)
    # A gather sends nothing between the devices of fsdp.
    assert gathered == tuple(axes.replace("data", "").strip() for axes in found)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_moments_and_averages_lie_where_their_parameters_lie(optimizer):
    config = default_config()
    config.optimizer.name = optimizer
    config.optimizer.multipliers = (("stem/.*", 0.0),)
    model = make_model(config.model, 1000)
    params = jax.eval_shape(lambda: init_params(model, 224, 0))
    tx = make_optimizer(config.optimizer, lambda step: 0.1, params)
    state = jax.eval_shape(lambda params: init_state(params, tx, ema_decay=0.9), params)

    of_params, of_state = specs_of(params, 8), specs_of(state, 8)
    mirrors = 0
    for name, spec in of_state.items():
        parameter = next((parameter for parameter in of_params if name.endswith("/" + parameter)), None)
        assert spec == of_params[parameter] if parameter else not any(spec), name
        mirrors += parameter is not None and name not in ("params/" + parameter, "ema/" + parameter)
    trained = sum(not name.startswith("stem/") for name in of_params)
    assert mirrors == trained * (2 if optimizer == "adam" else 1)

    bytes_split = sum(x.size for path, x in jax.tree_util.tree_flatten_with_path(params)[0] if any(of_params[path_name(path)]))
    assert bytes_split > 0.99 * sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_a_batch_is_split_over_every_device_and_comes_back_in_order(fsdp):
    mesh = make_mesh(fsdp)
    batch = {"image": np.arange(16 * 3, dtype=np.uint8).reshape(16, 3), "mask": np.arange(16, dtype=np.float32)}
    on_mesh = to_global(batch, mesh)
    for name, x in on_mesh.items():
        assert x.sharding == batch_sharding(mesh)
        assert {shard.data.shape[0] for shard in x.addressable_shards} == {2}
        np.testing.assert_array_equal(to_host(on_mesh)[name], batch[name])
    assert local_batch_indices(mesh, 16).tolist() == list(range(16))


@pytest.mark.parametrize("batch_size", [1, 7, 12, 1001])
def test_a_batch_that_the_devices_do_not_divide_is_refused(batch_size):
    with pytest.raises(UserError, match=f"A batch of {batch_size} images.* multiple of 8"):
        local_batch_indices(make_mesh(2), batch_size)


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_a_step_takes_parameters_whole_along_data_in_the_type_of_products_and_gives_gradients_back_in_parts(fsdp):
    mesh, x = make_mesh(fsdp), np.arange(64 * 16, dtype=np.float32).reshape(64, 16)
    params = {"block": {"kernel": x, "bias": x[0]}, "head": {"kernel": x}}
    params = jax.device_put(params, state_sharding(params, mesh))
    types = {"block/kernel": jnp.bfloat16, "block/bias": jnp.float32, "head/kernel": jnp.float32}

    taken = jax.jit(lambda params: gather_params(params, mesh, types.get))(params)
    for leaf, wanted in zip(jax.tree.leaves(taken), jax.tree.leaves(state_sharding(taken, mesh, GATHERED_AXES)), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim)
    assert {name: leaf.dtype for name, leaf in named_arrays(taken).items()} == types
    np.testing.assert_array_equal(taken["block"]["kernel"], x.astype(jnp.bfloat16))

    given = jax.jit(lambda grads: scatter_grads(grads, mesh))(taken)
    assert {leaf.dtype for leaf in jax.tree.leaves(given)} == {jnp.dtype(jnp.float32)}
    for leaf, was in zip(jax.tree.leaves(given), jax.tree.leaves(params), strict=True):
        assert leaf.sharding.is_equivalent_to(was.sharding, leaf.ndim)
    assert given["head"]["kernel"].addressable_shards[0].data.size == x.size // 8


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_evaluators_have_parameters_whole_along_data(fsdp):
    mesh, x = make_mesh(fsdp), np.arange(64 * 16, dtype=np.float32).reshape(64, 16)
    params = jax.device_put({"kernel": x}, state_sharding({"block": {"kernel": x}}, mesh)["block"])
    given = gather_for_evaluation({"block": params}, mesh)["block"]["kernel"]
    assert given.addressable_shards[0].data.size == x.size // fsdp
    np.testing.assert_array_equal(given, x)


def test_a_replicated_array_is_whole_on_every_device():
    x = jax.device_put(np.arange(6.0), replicated(make_mesh(4)))
    assert x.sharding.spec == PartitionSpec()
    assert {shard.data.shape for shard in x.addressable_shards} == {(6,)}


@pytest.mark.parametrize("value", [True, False])
def test_alone_the_writers_word_is_ones_own(value):
    assert broadcast_from_writer(value) is value


@pytest.mark.parametrize("name", ["kind of device", "devices of a host", *JAX_OPTIONS])
def test_what_hosts_must_have_alike_of_devices_and_jax_is_a_fact(name):
    expected = {"kind of device": "cpu", "devices of a host": 8}
    assert local_device_facts()[name] == expected.get(name, getattr(jax.config, name, None))
