"""What a page shows of a run that is in none of its text files: training images, predictions, token-mixing units.

Each is made anew from the run's config and checkpoint, through the same functions as in training and evaluation. Not
here: how they are drawn (pictures.py), what is said about them (sections.py).
"""

from typing import NamedTuple

import jax
import numpy as np

from mixer_jax.checkpoints.surgery import TOKEN_KERNEL
from mixer_jax.checkpoints.weights import load_weights, tree_of
from mixer_jax.classes import describe
from mixer_jax.data.images.augment import train_transform
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Source
from mixer_jax.data.sources.subset import Subset
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.errors import UserError
from mixer_jax.evaluation.evaluators import open_examples
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.models.registry import make_model
from mixer_jax.parallel import make_mesh
from mixer_jax.report.pictures import Picture
from mixer_jax.report.runs import Run

EVAL_BATCH = 64  # images; a report may be made on a smaller machine than the run


class Predictions(NamedTuple):
    evaluator: str  # whose test set it is
    step: int  # of the checkpoint
    sample: list[Picture]  # drawn at random
    mistakes: list[Picture]  # further wrong ones, in the same random order
    looked_at: int  # images, until there were enough mistakes


def training_images(run: Run, count: int) -> list[Picture]:
    """The first `count` images of the run's training stream, as augmented there; mixup comes later, on the device."""
    config = run.config
    source = open_source(config.data)
    batches = train_batches(
        source, train_transform(config.augment, config.image_size), config.loader, seed=config.seed,
        batch_size=config.batch_size, batch_indices=np.arange(min(count, config.batch_size)), steps=range(1),
        unreadable=UnreadableImages(),
    )  # fmt: skip
    batch = next(iter(batches))
    names = (_class_names(source, labels) for labels in batch["labels"])
    return [Picture(image, name) for image, name in zip(batch["image"], names, strict=True)]


def predictions(run: Run, shown: int, mistakes: int) -> Predictions:
    """A random sample of `shown` test images as the newest checkpoint answers them, and up to `mistakes` more mistakes.

    The test set is that of the first evaluator of kind classification; images without labels are left out.
    """
    name = next((name for name, evaluator in run.config.evals.items() if evaluator.kind == "classification"), None)
    if name is None:
        raise UserError("the run has no evaluator of kind classification")
    weights = load_weights(str(run.workdir))
    params = tree_of(weights.arrays)
    examples = open_examples(run.config, weights.class_names, str(run.workdir))[name]["data"]
    order = np.random.default_rng(0).permutation(len(examples.source))  # a source may be sorted by class
    source = Subset(examples.source, order)
    predict = jax.jit(make_predict(make_model(run.config.model, run.config.num_classes)))
    found = Predictions(name, weights.step, [], [], 0)
    for batch in examples._replace(source=source, batch_size=EVAL_BATCH).batches(_one_device()):
        classes = np.argmax(predict(params, batch["image"])[0], axis=-1)
        images, labels, real = jax.device_get((batch["image"], batch["labels"], batch["mask"] > 0))
        for i in np.flatnonzero(real & np.any(labels >= 0, axis=1)):
            wrong = classes[i] not in labels[i]
            mistaken_for = describe(source.class_names[classes[i]]) if wrong else ""
            picture = Picture(images[i], _class_names(source, labels[i]), mistaken_for)
            found = found._replace(looked_at=found.looked_at + 1)
            if len(found.sample) < shown:
                found.sample.append(picture)
            elif wrong:
                found.mistakes.append(picture)
            if len(found.mistakes) == mistakes:
                return found
    return found


def token_mixing_units(run: Run) -> np.ndarray:
    """The first block's hidden token-mixing units: weights over the patches, float64 [D_S, sqrt S, sqrt S].

    Raises UserError when the model has none, or when its patches do not form a square.
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
    """[N, h, w] -> [N]: mean distance from frequency 0, weighted by energy, in cycles a patch (0 for zeros)."""
    energy = np.abs(np.fft.fft2(units)) ** 2
    radius = np.hypot(np.fft.fftfreq(units.shape[1])[:, None], np.fft.fftfreq(units.shape[2]))
    total = energy.sum(axis=(1, 2))
    return (energy * radius).sum(axis=(1, 2)) / np.where(total > 0, total, 1)


def pair_units(units: np.ndarray) -> list[tuple[int, ...]]:
    """Indices into [N, h, w]: low frequency first, each with the one left that is most its inverse, if any is."""
    flat = units.reshape(len(units), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    unit_vectors = flat / np.where(norms > 0, norms, 1)
    cosine = unit_vectors @ unit_vectors.T
    left, pairs = [int(i) for i in np.argsort(spatial_frequency(units), kind="stable")], []
    while left:
        first = left.pop(0)
        partner = min(left, key=lambda other: cosine[first, other], default=None)
        if partner is not None:
            left.remove(partner)
        pairs.append((first,) if partner is None else (first, partner))
    return pairs


def _one_device() -> jax.sharding.Mesh:
    return make_mesh(1, jax.devices()[:1])


def _class_names(source: Source, labels: np.ndarray) -> str:
    return ", ".join(describe(source.class_names[label]) for label in labels if label >= 0)
