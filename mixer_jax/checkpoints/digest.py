"""Two fingerprints of arrays: one to compare parameters between runs, one to notice that stored bytes have changed."""

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.parallel import path_name


def named_arrays(tree) -> dict[str, jax.Array]:
    """{"stem/kernel": array, ...}, sorted by path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return dict(sorted((path_name(path), leaf) for path, leaf in leaves))


def params_sha256(params: dict) -> str:
    """SHA-256 over host arrays in the order of their paths.

    For each array: the line "PATH DTYPE DIM,DIM,...\\n" in UTF-8, then its little-endian bytes, rows first.
    """
    sha = hashlib.sha256()
    for name, array in named_arrays(params).items():
        array = np.asarray(array)
        sha.update(f"{name} {array.dtype.name} {','.join(map(str, array.shape))}\n".encode())
        sha.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).data)
    return sha.hexdigest()


@jax.jit
def checksums(tree) -> dict[str, jax.Array]:
    """A uint32 for each array: the sum of its elements' bits, each times an odd number that its position gives, modulo 2^32.

    Changes with any one bit, wherever it is, and does not depend on how the array is spread over devices; costs one pass over
    the state where it lies. Orbax itself notices missing or truncated files, but not changed bytes.
    """
    return {name: _checksum(x) for name, x in named_arrays(tree).items()}


def _checksum(x: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    position = jnp.zeros(x.shape, jnp.uint32)
    for dim in range(x.ndim):
        stride = math.prod(x.shape[dim + 1 :]) % 2**32
        position += jax.lax.broadcasted_iota(jnp.uint32, x.shape, dim) * np.uint32(stride)
    return jnp.sum(bits * (position * np.uint32(2 * 0x9E3779B1 % 2**32) + np.uint32(1)), dtype=jnp.uint32)
