"""Parameters and images that both sides of a comparison draw alike, from names and shapes."""

import zlib

import numpy as np

# timm's name -> family, variant; all with 1000 classes, at 224 pixels
MODELS = {
    "mixer_b16_224": ("mixer", "B/16"),
    "mixer_l16_224": ("mixer", "L/16"),
    "vit_base_patch16_224": ("vit", "B/16"),
    "resnetv2_50x1_bit": ("resnet", "R50x1"),
}

# The bounds that docs/weights.md states for the largest difference of the logits, as a share of the largest logit: if GELU has
# the form that it has here, and if it has the library's. A BiT has no GELU.
BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "timm mixer_b16_224": (2e-6, 2e-4),
    "timm mixer_l16_224": (2e-6, 2e-4),
    "timm vit_base_patch16_224": (2e-6, 2e-4),
    "timm resnetv2_50x1_bit": (None, 3e-5),
    "transformers ViT-B/16": (2e-6, None),
    "transformers BiT-R50x1": (None, 3e-5),
}


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Float32 numbers for parameters of these names (as timm has them), none of which a permutation or a transposition keeps.

    Kernels have variance 1 / inputs, scales of norms lie around 1, the rest around 0.
    """
    drawn = {}
    for name, shape in shapes.items():
        rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        x = rng.standard_normal(shape, np.float32)
        if len(shape) > 1:
            x *= np.float32(np.prod(shape[1:], dtype=np.float64) ** -0.5)
        elif "norm" in name and name.endswith("weight"):
            x = 1 + x / 4
        else:
            x /= 4
        drawn[name] = x.astype(np.float32)
    return drawn


def images() -> np.ndarray:
    """Float32 [2, 224, 224, 3] in [-1, 1]: noise, and even colours in stripes."""
    noise = np.random.Generator(np.random.PCG64(2105)).uniform(-1, 1, (224, 224, 3))
    stripes = np.linspace(-1, 1, 224)[:, None, None].repeat(224, 1) * (np.arange(224)[:, None] // 40 % 2 * 2 - 1) * [1, 0.5, -0.7]
    return np.stack([noise, stripes]).astype(np.float32)


def relative_error(x: np.ndarray, y: np.ndarray) -> float:
    """Largest |x - y| over the largest |y|."""
    return float(np.max(np.abs(x - y)) / np.max(np.abs(y)))
