"""The parts of a page that are in no text file of a run: training images and token-mixing units.

They are computed from the run's config and checkpoint by the functions that training and evaluation use. sections.py writes the
text about them.
"""

import numpy as np

from mixer_jax.checkpoints.surgery import TOKEN_KERNEL
from mixer_jax.checkpoints.weights import load_weights
from mixer_jax.classes import describe
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.errors import UserError
from mixer_jax.pages.parts import Picture
from mixer_jax.pages.pictures import labeled
from mixer_jax.report.runs import Run


def training_images(run: Run, count: int) -> list[Picture]:
    """Return the first `count` images of the run's training stream, but at most a batch.

    The images are augmented as in training, before mixup, which runs on the device.
    """
    config = run.config
    source = open_source(config.data)
    batches = train_batches(
        source, train_transform(config.augment, config.image_size), config.loader, seed=config.seed,
        batch_size=config.batch_size, batch_indices=np.arange(min(count, config.batch_size)), steps=range(1),
        unreadable=UnreadableImages(),
    )  # fmt: skip
    batch = next(iter(batches))
    names = (_class_names(source, labels) for labels in batch["labels"])
    return [labeled(image, name) for image, name in zip(batch["image"], names, strict=True)]


def token_mixing_units(run: Run) -> np.ndarray:
    """Return the weights of the first block's hidden token-mixing units over the patches, float64 [D_S, sqrt S, sqrt S].

    Raises UserError if the model has no token mixing, or if its patches do not form a square.
    """
    arrays = load_weights(str(run.workdir)).arrays
    if TOKEN_KERNEL not in arrays:
        raise UserError("the model has no token-mixing block")
    kernel = arrays[TOKEN_KERNEL].astype(np.float64)  # [S, D_S]
    side = round(kernel.shape[0] ** 0.5)
    if side**2 != kernel.shape[0]:
        raise UserError(f"{kernel.shape[0]} patches do not form a square")
    return np.nan_to_num(kernel).T.reshape(-1, side, side)


def spatial_frequency(units: np.ndarray) -> np.ndarray:
    """Return the mean spatial frequency of each unit in cycles per patch, weighted by energy: [N, h, w] -> [N].

    With F(u, v) the discrete Fourier transform of a unit, this is sum(|F|^2 * sqrt(u^2 + v^2)) / sum(|F|^2). It is 0 for a unit
    of zeros.
    """
    energy = np.abs(np.fft.fft2(units)) ** 2
    radius = np.hypot(np.fft.fftfreq(units.shape[1])[:, None], np.fft.fftfreq(units.shape[2]))
    total = energy.sum(axis=(1, 2))
    return (energy * radius).sum(axis=(1, 2)) / np.where(total > 0, total, 1)


def pair_units(units: np.ndarray) -> list[tuple[int, ...]]:
    """Return pairs of indices into units [N, h, w], from low to high spatial frequency of the first unit of a pair.

    The second unit is, among those that are not in a pair yet, the one with the smallest cosine similarity to the first, which is
    the one that is most its inverse. If N is odd, the last pair has one unit.
    """
    flat = units.reshape(len(units), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    unit_vectors = flat / np.where(norms > 0, norms, 1)
    cosine = unit_vectors @ unit_vectors.T
    remaining, pairs = [int(i) for i in np.argsort(spatial_frequency(units), kind="stable")], []
    while remaining:
        first = remaining.pop(0)
        partner = min(remaining, key=lambda other: cosine[first, other], default=None)
        if partner is not None:
            remaining.remove(partner)
        pairs.append((first,) if partner is None else (first, partner))
    return pairs


def _class_names(source: Source, labels: np.ndarray) -> str:
    return ", ".join(describe(source.class_names[label]) for label in labels if label >= 0)
