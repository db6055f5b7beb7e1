"""Tests of fingerprints: they are equal for equal arrays with any sharding, and differ after any change."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.checkpoints.digest import checksums, params_sha256
from mixer_jax.parallel import make_mesh, state_sharding

RNG = np.random.default_rng(0)
ARRAYS = {
    "float32": RNG.normal(size=(3, 8, 5)).astype(np.float32),
    "bfloat16": RNG.normal(size=(16, 3)).astype(jnp.bfloat16),
    "int32": np.array(7, np.int32),
}


def test_params_sha256_is_that_of_sorted_paths_with_dtype_shape_and_bytes():
    params = {"b": {"kernel": np.array([[1, 2, 3]], np.float32)}, "a": np.array(5, np.int32)}
    text = b"a int32 \n" + (5).to_bytes(4, "little") + b"b/kernel float32 1,3\n" + np.array([1, 2, 3], "<f4").tobytes()
    assert params_sha256(params) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("name", ARRAYS)
def test_any_single_bit_that_changes_changes_the_checksum(name: str):
    array = ARRAYS[name]
    before = int(checksums({name: jnp.asarray(array)})[name])
    for bit in RNG.choice(array.nbytes * 8, size=32, replace=False):
        data = bytearray(array.tobytes())
        data[bit // 8] ^= 1 << (bit % 8)
        changed = np.frombuffer(bytes(data), array.dtype).reshape(array.shape)
        assert int(checksums({name: jnp.asarray(changed)})[name]) != before


def test_two_elements_that_change_places_change_the_checksum():
    array = ARRAYS["float32"]
    swapped = array.copy()
    swapped[0, 0, 0], swapped[2, 3, 1] = array[2, 3, 1], array[0, 0, 0]
    assert checksums({"x": jnp.asarray(array)})["x"] != checksums({"x": jnp.asarray(swapped)})["x"]


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_the_checksum_does_not_depend_on_how_an_array_is_spread(fsdp: int):
    tree = {"layer": {"kernel": jnp.asarray(ARRAYS["float32"])}}
    spread = jax.device_put(tree, state_sharding(tree, make_mesh(fsdp)))
    assert checksums(spread)["layer/kernel"] == checksums(tree)["layer/kernel"]
