"""Changing trained parameters so that they fit another resolution or other classes. Pure functions of host arrays.

Only what the resolution sets is touched: token mixing in a Mixer, position embeddings in a ViT, nothing in a ResNet. S tokens lie
in rows on a square grid. Three ways, of which `fit_resolution` takes the one that the wanted shapes ask for:

    tiles        Mixer, K times the side and K^2 times D_S: supplement C of arXiv 2105.01601
    interpolate  Mixer, any other side, the same D_S: ours; the paper has no answer there
    zoom         ViT: position embeddings as the code released with arXiv 2010.11929 resizes them
"""

import math
import re

import jax
import numpy as np
import scipy.ndimage

from mixer_jax.checkpoints.formats import Arrays
from mixer_jax.errors import UserError

TOKEN_KERNEL = "MixerBlock_0/token_mixing/Dense_0/kernel"  # [S, D_S]
POSITIONS = "Transformer/posembed_input/pos_embedding"  # [1, S, C] or, with a class token, [1, 1 + S, C]


def fit_resolution(arrays: Arrays, expected: dict[str, tuple]) -> tuple[Arrays, str]:
    """(`arrays` for the resolution of `expected` {path: (dtype, shape)}, one line on what was done or "" when nothing was).

    Where no surgery leads from one to the other, `arrays` come back as they are.
    """
    if TOKEN_KERNEL in arrays and TOKEN_KERNEL in expected:
        (tokens, width), (new_tokens, new_width) = arrays[TOKEN_KERNEL].shape, expected[TOKEN_KERNEL][1]
        grid, new_grid = _grid(tokens), _grid(new_tokens)
        if tokens == new_tokens or not grid or not new_grid:
            return arrays, ""
        said = f"{grid} x {grid} -> {new_grid} x {new_grid} patches"
        k = new_grid // grid
        if k > 1 and (new_grid, new_width) == (k * grid, k**2 * width):
            return tiles(arrays, k), f"{said}: token mixing of {k} x {k} tiles, D_S {width} -> {new_width} (paper, supplement C)"
        if new_width == width:
            return interpolate(arrays, new_grid), f"{said}: token mixing interpolated (ours, not the paper's)"
    if POSITIONS in arrays and POSITIONS in expected:
        tokens, new_tokens = arrays[POSITIONS].shape[1], expected[POSITIONS][1][1]
        extra = int("cls" in arrays)
        grid, new_grid = _grid(tokens - extra), _grid(new_tokens - extra)
        if tokens != new_tokens and grid and new_grid and ("cls" in expected) == bool(extra):
            return zoom(arrays, new_grid), f"{grid} x {grid} -> {new_grid} x {new_grid} patches: position embeddings interpolated"
    return arrays, ""


def tiles(arrays: Arrays, k: int) -> Arrays:
    """A Mixer for K times the side, which treats K x K tiles of the image as the old one treats the whole.

    Supplement C, for both matrices of token mixing: W' = blockdiag(W, ..., W), with K^2 blocks, biases tiled; zeros off the
    diagonal can be learned. The paper's block form has the tokens tile by tile; ours come in rows over the whole image, so the
    token axis of W', and nothing else of the model, is put into that order.

    Law: pooled features of the new model on an image = mean of the old one's over its K x K tiles. (The layer norms work on
    single tokens, and the head averages.)
    """
    eye = np.eye(k**2)

    def change(name: str, x: np.ndarray) -> np.ndarray:
        if name == "Dense_0/bias":  # over D_S
            return np.tile(x, k**2)
        grid = _grid(x.shape[0] if name == "Dense_0/kernel" else x.shape[-1])
        rows = np.argsort(tile_order(grid, k))  # for each token of the new image in rows, its position tile by tile
        if name == "Dense_0/kernel":  # [S, D_S]
            return np.kron(eye, x)[rows]
        if name == "Dense_1/kernel":  # [D_S, S]
            return np.kron(eye, x)[:, rows]
        return np.tile(x, k**2)[rows]  # Dense_1/bias, over S

    return _change_token_mixing(arrays, change)


def tile_order(grid: int, k: int) -> np.ndarray:
    """int [K^2 S]: the tokens of a KG x KG grid, counted in rows, listed tile by tile and in rows within each G x G tile."""
    return np.arange((k * grid) ** 2).reshape(k, grid, k, grid).swapaxes(1, 2).reshape(-1)


def interpolate(arrays: Arrays, new_grid: int) -> Arrays:
    """A Mixer for another number of tokens with the same D_S. Ours, not the paper's.

    It does what resizing would do that the old model could not: token mixing sees the new grid of tokens resized to the old one,
    and its answer is resized to the new one. Both resizings are linear maps (bilinear, with antialiasing where it shrinks), so
    they are multiplied into the kernels. The identity when the grid stays as it is.
    """

    def change(name: str, x: np.ndarray) -> np.ndarray:
        if name == "Dense_0/bias":
            return x
        grid = _grid(x.shape[0] if name == "Dense_0/kernel" else x.shape[-1])
        if name == "Dense_0/kernel":
            return _resizing(new_grid, grid).T @ x
        return x @ _resizing(grid, new_grid).T  # Dense_1, kernel [D_S, S] and bias [S]

    return _change_token_mixing(arrays, change)


def zoom(arrays: Arrays, new_grid: int) -> Arrays:
    """A ViT for another number of patches: a spline of order 1 through the corner embeddings; the class token keeps its own."""
    positions = arrays[POSITIONS]
    extra = int("cls" in arrays)
    grid = _grid(positions.shape[1] - extra)
    image = positions[0, extra:].reshape(grid, grid, -1)
    image = scipy.ndimage.zoom(image, (new_grid / grid, new_grid / grid, 1), order=1)
    changed = np.concatenate([positions[:, :extra], image.reshape(1, new_grid**2, -1)], axis=1)
    return arrays | {POSITIONS: changed.astype(positions.dtype)}


def count_classes(arrays: Arrays) -> int:
    """Return how many classes the head has, in whichever family; 0 without a head."""
    return next((x.shape[-1] for name, x in arrays.items() if name.startswith("head/")), 0)


def subset_head(arrays: Arrays, classes: list[int]) -> Arrays:
    """The head for these of its classes, in this order. Raises UserError when there is no head or no such class."""
    num_classes = count_classes(arrays)
    if not num_classes:
        raise UserError("A subset of classes needs weights that have a head: these have none.")
    outside = [number for number in classes if not 0 <= number < num_classes]
    if outside:
        raise UserError(f"The head has classes 0 to {num_classes - 1}; there is no class {outside[0]} to keep.")
    return arrays | {name: x[..., classes] for name, x in arrays.items() if name.startswith("head/")}


def _change_token_mixing(arrays: Arrays, change) -> Arrays:
    """Apply `change(name, array)` to every Dense_0/kernel, Dense_0/bias, Dense_1/kernel, Dense_1/bias of token mixing."""
    changed = {}
    for name, x in arrays.items():
        if match := re.fullmatch(r"MixerBlock_\d+/token_mixing/(.*)", name):
            changed[name] = np.ascontiguousarray(change(match[1], x), dtype=x.dtype)
    return arrays | changed


def _resizing(old: int, new: int) -> np.ndarray:
    """float64 [new^2, old^2]: the matrix that resizes an old x old grid, in rows."""
    side = np.asarray(jax.image.resize(np.eye(old, dtype=np.float32), (new, old), "linear"), np.float64)
    return np.kron(side, side)


def _grid(tokens: int) -> int:
    """The side of a square of so many tokens; 0 when they make none."""
    side = math.isqrt(max(tokens, 0))
    return side if side**2 == tokens else 0
