"""Two fingerprints of arrays: a SHA-256 that compares parameters between runs, and checksums that detect changed bytes."""

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np

from mixer_jax.parallel import path_name


def named_arrays(tree) -> dict[str, jax.Array]:
    """Return {"stem/kernel": array, ...}, the arrays of a tree by path, sorted by path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return dict(sorted((path_name(path), leaf) for path, leaf in leaves))


def params_sha256(params: dict) -> str:
    """Return the SHA-256 of host arrays, in the order of their paths.

    For each array, the hash covers the text "PATH DTYPE DIM,DIM,..." with a newline, in UTF-8, and then the array's little-endian
    bytes in C order.
    """
    sha = hashlib.sha256()
    for name, array in named_arrays(params).items():
        array = np.asarray(array)
        sha.update(f"{name} {array.dtype.name} {','.join(map(str, array.shape))}\n".encode())
        sha.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).data)
    return sha.hexdigest()


@jax.jit
def checksums(tree) -> dict[str, jax.Array]:
    """Return a checksum for each array, as {path: uint32}.

    The checksum is the sum over elements i of bits(x_i) * (2 c i + 1) modulo 2^32, where bits(x_i) is the element's bit pattern
    as an unsigned integer, i is its index in C order, and c is a constant. The factors are odd, so a change of any single bit
    changes the sum. The checksum does not depend on how an array is sharded, and takes one pass over the arrays on their devices.
    Orbax itself detects missing and truncated files, but not changed bytes.
    """
    return {name: _checksum(x) for name, x in named_arrays(tree).items()}


def _checksum(x: jax.Array) -> jax.Array:
    """Return the checksum of one array, whose elements have 1, 2 or 4 bytes."""
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    position = jnp.zeros(x.shape, jnp.uint32)
    for dim in range(x.ndim):
        stride = math.prod(x.shape[dim + 1 :]) % 2**32
        position += jax.lax.broadcasted_iota(jnp.uint32, x.shape, dim) * np.uint32(stride)
    return jnp.sum(bits * (position * np.uint32(2 * 0x9E3779B1 % 2**32) + np.uint32(1)), dtype=jnp.uint32)
