"""The units of a Mixer as images: hidden units of token-mixing MLPs over the patches, and filters of the stem over the pixels.

Figures 5 to 7 of the MLP-Mixer paper (arXiv 2105.01601) show such units. The paper sorts them by frequency and puts units of
opposite phase side by side, but it does not say by which rule. The rules here, `spatial_frequency` and `pair_units`, are ours.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mixer_jax.errors import UserError

STEM_KERNEL = "stem/kernel"  # [P, P, 3, C]
NO_TOKEN_MIXING = "the model has no token-mixing MLP, so it is no Mixer"


class UnitPair(NamedTuple):
    """Two units of opposite phase. If the number of units is odd, one unit has no partner."""

    units: tuple[int, ...]  # indices, that of the lower frequency first
    cosine: float  # the cosine similarity of their weights, or 0 without a partner
    frequency: float  # the mean of their spatial frequencies, in cycles per patch


def token_kernel(block: int) -> str:
    """Return the name of the kernel of a token-mixing MLP's first layer, [S, D_S]. Blocks are counted from 0."""
    return f"MixerBlock_{block}/token_mixing/Dense_0/kernel"


def token_mixing_units(arrays: Mapping[str, np.ndarray], block: int = 0) -> np.ndarray:
    """Return the input weights of the hidden units of a token-mixing MLP over the patches, float64 [D_S, sqrt S, sqrt S].

    Raises UserError if the model has no token mixing or no such block, or if its patches do not form a square.
    """
    if token_kernel(0) not in arrays:
        raise UserError(NO_TOKEN_MIXING)
    if token_kernel(block) not in arrays:
        count = next(number for number in range(len(arrays) + 1) if token_kernel(number) not in arrays)
        raise UserError(f"the model has {count} token-mixing MLPs, 0 to {count - 1}, and none with the number {block}")
    kernel = arrays[token_kernel(block)].astype(np.float64)
    side = round(kernel.shape[0] ** 0.5)
    if side**2 != kernel.shape[0]:
        raise UserError(f"{kernel.shape[0]} patches do not form a square")
    return np.nan_to_num(kernel).T.reshape(-1, side, side)


def stem_filters(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the filters of a Mixer's stem over the pixels of a patch, float64 [C, P, P, 3]. The last axis is RGB.

    Raises UserError if the model is no Mixer.
    """
    if token_kernel(0) not in arrays or STEM_KERNEL not in arrays:
        raise UserError(NO_TOKEN_MIXING)
    return np.nan_to_num(arrays[STEM_KERNEL].astype(np.float64)).transpose(3, 0, 1, 2)


def spatial_frequency(units: np.ndarray) -> np.ndarray:
    """Return the mean spatial frequency of each unit, weighted by energy: [N, h, w] or [N, h, w, 3] -> [N].

    It is in cycles per patch for units of token mixing, and in cycles per pixel for filters. With F(u, v) the discrete Fourier
    transform of a unit, it is sum(|F|^2 * sqrt(u^2 + v^2)) / sum(|F|^2). The sums include the colors. It is 0 for a
    unit of zeros.
    """
    energy = np.abs(np.fft.fft2(units, axes=(1, 2))) ** 2
    energy = energy.reshape(*units.shape[:3], -1).sum(axis=-1)
    radius = np.hypot(np.fft.fftfreq(units.shape[1])[:, None], np.fft.fftfreq(units.shape[2]))
    total = energy.sum(axis=(1, 2))
    return (energy * radius).sum(axis=(1, 2)) / np.where(total > 0, total, 1)


def pair_units(units: np.ndarray) -> list[UnitPair]:
    """Return the units [N, h, w] in pairs of opposite phase, from low to high frequency of the pairs.

    Among all pairs of units, the pair with the smallest cosine similarity is taken first. Then it is the pair with the smallest
    one among the units that are left, and so on. If N is odd, the unit that is left over comes last.
    """
    flat = units.reshape(len(units), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    unit_vectors = flat / np.where(norms > 0, norms, 1)
    first, second = np.triu_indices(len(units), k=1)
    cosine = (unit_vectors @ unit_vectors.T)[first, second]
    frequency = spatial_frequency(units)
    order = np.argsort(cosine, kind="stable")
    free, pairs = set(range(len(units))), []
    for a, b, similarity in zip(first[order].tolist(), second[order].tolist(), cosine[order].tolist(), strict=True):
        if a in free and b in free:
            free -= {a, b}
            pair = sorted((a, b), key=lambda unit: (frequency[unit], unit))
            pairs.append(UnitPair(tuple(pair), similarity, float(frequency[pair].mean())))
    pairs.sort(key=lambda pair: (pair.frequency, pair.units))
    return pairs + [UnitPair((unit,), 0.0, float(frequency[unit])) for unit in free]
