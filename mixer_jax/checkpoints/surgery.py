"""Pure functions of host arrays that change trained parameters to fit another resolution or other classes.

They change only the parameters whose shapes depend on the resolution: token mixing in a Mixer, position embeddings in a ViT, and
nothing in a ResNet. The S tokens are the cells of a square grid, row by row. There are three methods. `fit_resolution` chooses
among them by the shapes that the new model expects:

    tiles        for a Mixer with K times the side and K^2 times D_S: supplement C of arXiv 2105.01601
    interpolate  for a Mixer with any other side and the same D_S: our own method, because the paper gives none
    zoom         for a ViT: resizes position embeddings as the code released with arXiv 2010.11929 does
"""

import math
import re

import jax
import numpy as np

from mixer_jax.checkpoints.formats import Arrays
from mixer_jax.errors import UserError

TOKEN_KERNEL = "MixerBlock_0/token_mixing/Dense_0/kernel"  # [S, D_S]
POSITIONS = "Transformer/posembed_input/pos_embedding"  # [1, S, C] or, with a class token, [1, 1 + S, C]


def fit_resolution(arrays: Arrays, expected: dict[str, tuple]) -> tuple[Arrays, str]:
    """Return (`arrays` changed to the resolution of `expected`, a line that says what was done).

    If nothing needs to be changed, or if no method leads to the expected shapes, returns (`arrays`, "").

    Args:
      arrays: the trained parameters, by path.
      expected: {path: (dtype, shape)} of the new model's parameters.
    """
    if TOKEN_KERNEL in arrays and TOKEN_KERNEL in expected:
        (tokens, width), (new_tokens, new_width) = arrays[TOKEN_KERNEL].shape, expected[TOKEN_KERNEL][1]
        grid, new_grid = _grid(tokens), _grid(new_tokens)
        if tokens == new_tokens or not grid or not new_grid:
            return arrays, ""
        grids = f"{grid} x {grid} -> {new_grid} x {new_grid} patches"
        k = new_grid // grid
        if k > 1 and (new_grid, new_width) == (k * grid, k**2 * width):
            return tiles(arrays, k), f"{grids}: token mixing of {k} x {k} tiles, D_S {width} -> {new_width} (paper, supplement C)"
        if new_width == width:
            return interpolate(arrays, new_grid), f"{grids}: token mixing interpolated (ours, not the paper's)"
    if POSITIONS in arrays and POSITIONS in expected:
        tokens, new_tokens = arrays[POSITIONS].shape[1], expected[POSITIONS][1][1]
        extra = int("cls" in arrays)
        grid, new_grid = _grid(tokens - extra), _grid(new_tokens - extra)
        if tokens != new_tokens and grid and new_grid and ("cls" in expected) == bool(extra):
            return zoom(arrays, new_grid), f"{grid} x {grid} -> {new_grid} x {new_grid} patches: position embeddings interpolated"
    return arrays, ""


def tiles(arrays: Arrays, k: int) -> Arrays:
    """Return a Mixer for K times the side, which treats each of K x K tiles as the old Mixer treats a whole image.

    This is supplement C of the paper. Both matrices of token mixing become W' = blockdiag(W, ..., W) with K^2 blocks, and the
    biases are tiled. Training can change the zeros outside the blocks. The paper's block form orders the tokens tile by tile. Our
    tokens are ordered row by row over the whole image, so this function permutes the token axis of W'. Nothing else changes.

    Law: the pooled features of the new model on an image are the mean of the old model's pooled features on its K x K tiles. It
    holds because the layer norms work on single tokens and the pooling is a mean over tokens.
    """
    eye = np.eye(k**2)

    def change(name: str, x: np.ndarray) -> np.ndarray:
        if name == "Dense_0/bias":  # [D_S]
            return np.tile(x, k**2)
        grid = _grid(x.shape[0] if name == "Dense_0/kernel" else x.shape[-1])
        order = np.argsort(tile_order(grid, k))  # Token i of the new image, row by row, is token order[i], tile by tile.
        if name == "Dense_0/kernel":  # [S, D_S]
            return np.kron(eye, x)[order]
        if name == "Dense_1/kernel":  # [D_S, S]
            return np.kron(eye, x)[:, order]
        return np.tile(x, k**2)[order]  # Dense_1/bias [S]

    return _change_token_mixing(arrays, change)


def tile_order(grid: int, k: int) -> np.ndarray:
    """Return the row-by-row numbers of the tokens of a KG x KG grid, listed tile by tile: int [(KG)^2].

    Within each G x G tile, the tokens are listed row by row.
    """
    return np.arange((k * grid) ** 2).reshape(k, grid, k, grid).swapaxes(1, 2).reshape(-1)


def interpolate(arrays: Arrays, new_grid: int) -> Arrays:
    """Return a Mixer for another number of tokens with the same D_S. This method is ours, not the paper's.

    Token mixing in the new model is equivalent to three steps: resize the new grid of tokens to the old grid, apply the old token
    mixing, and resize the result to the new grid. Both resizings are linear maps (bilinear, antialiased when the grid shrinks),
    so they are multiplied into the kernels. With the old grid size, the kernels stay the same.
    """

    def change(name: str, x: np.ndarray) -> np.ndarray:
        if name == "Dense_0/bias":
            return x
        grid = _grid(x.shape[0] if name == "Dense_0/kernel" else x.shape[-1])
        if name == "Dense_0/kernel":
            return _resizing(new_grid, grid).T @ x
        return x @ _resizing(grid, new_grid).T  # Dense_1/kernel [D_S, S] or Dense_1/bias [S]

    return _change_token_mixing(arrays, change)


def zoom(arrays: Arrays, new_grid: int) -> Arrays:
    """Return a ViT for another number of patches, with its position embeddings interpolated on the grid.

    The interpolation is a spline of order 1 that keeps the embeddings of the four corners. The class token keeps its embedding.
    """
    positions = arrays[POSITIONS]
    extra = int("cls" in arrays)
    grid = _grid(positions.shape[1] - extra)
    image = positions[0, extra:].reshape(grid, grid, -1)
    from scipy import ndimage  # It is heavy, and few starts of a run need it.

    image = ndimage.zoom(image, (new_grid / grid, new_grid / grid, 1), order=1)
    changed = np.concatenate([positions[:, :extra], image.reshape(1, new_grid**2, -1)], axis=1)
    return arrays | {POSITIONS: changed.astype(positions.dtype)}


def count_classes(arrays: Arrays) -> int:
    """Return the number of classes of the head, in any model family, or 0 if there is no head."""
    return next((x.shape[-1] for name, x in arrays.items() if name.startswith("head/")), 0)


def subset_head(arrays: Arrays, classes: list[int]) -> Arrays:
    """Return `arrays` with a head for these classes only, in this order.

    Raises UserError if there is no head, or if it does not have one of the classes.
    """
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
    """Return the matrix that resizes an old x old grid, whose cells are listed row by row: float64 [new^2, old^2]."""
    side = np.asarray(jax.image.resize(np.eye(old, dtype=np.float32), (new, old), "linear"), np.float64)
    return np.kron(side, side)


def _grid(tokens: int) -> int:
    """Return the side of the square grid with this many tokens, or 0 if the number is not a square."""
    side = math.isqrt(max(tokens, 0))
    return side if side**2 == tokens else 0
