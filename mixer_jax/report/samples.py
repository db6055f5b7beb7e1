"""The parts of a page that are in no text file of a run: training images, predictions and token-mixing units.

They are computed from the run's config and checkpoint by the functions that training and evaluation use. sections.py writes the
text about them.
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
from mixer_jax.pages.parts import Picture
from mixer_jax.pages.pictures import labeled
from mixer_jax.parallel import make_mesh
from mixer_jax.report.runs import Run

EVAL_BATCH = 64  # images; small, because the machine that makes a report may be smaller than the machine of the run


class Predictions(NamedTuple):
    """Test images with the classes that a checkpoint predicts."""

    evaluator: str  # the name of the evaluator whose test set it is
    step: int  # the step of the checkpoint
    sample: list[Picture]  # images drawn at random
    mistakes: list[Picture]  # wrongly classified images after the sample, in the same random order
    num_examined: int  # images that were classified to find the sample and the mistakes


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


def predictions(run: Run, shown: int, mistakes: int) -> Predictions:
    """Return the newest checkpoint's predictions for test images in a random order.

    The test set is that of the first evaluator of kind classification. Images without labels are left out.

    Args:
      run: the run.
      shown: the number of images in the sample.
      mistakes: the most further images that are classified wrongly.

    Raises:
      UserError: the run has no such evaluator or no checkpoint.
    """
    name = next((name for name, evaluator in run.config.evals.items() if evaluator.kind == "classification"), None)
    if name is None:
        raise UserError("the run has no evaluator of kind classification")
    weights = load_weights(str(run.workdir))
    params = tree_of(weights.arrays)
    examples = open_examples(run.config, weights.class_names, str(run.workdir))[name]["data"]
    order = np.random.default_rng(0).permutation(len(examples.source))  # A source may be sorted by class.
    source = Subset(examples.source, order)
    predict = jax.jit(make_predict(make_model(run.config.model, run.config.num_classes)))
    result = Predictions(name, weights.step, [], [], 0)
    for batch in examples._replace(source=source, batch_size=EVAL_BATCH).batches(_one_device()):
        classes = np.argmax(predict(params, batch["image"])[0], axis=-1)
        images, labels, is_example = jax.device_get((batch["image"], batch["labels"], batch["mask"] > 0))
        for i in np.flatnonzero(is_example & np.any(labels >= 0, axis=1)):
            is_wrong = classes[i] not in labels[i]
            mistaken_for = describe(source.class_names[classes[i]]) if is_wrong else ""
            picture = labeled(images[i], _class_names(source, labels[i]), mistaken_for)
            result = result._replace(num_examined=result.num_examined + 1)
            if len(result.sample) < shown:
                result.sample.append(picture)
            elif is_wrong:
                result.mistakes.append(picture)
            if len(result.mistakes) == mistakes:
                return result
    return result


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


def _one_device() -> jax.sharding.Mesh:
    return make_mesh(1, jax.devices()[:1])


def _class_names(source: Source, labels: np.ndarray) -> str:
    return ", ".join(describe(source.class_names[label]) for label in labels if label >= 0)
