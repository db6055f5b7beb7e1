"""A classifier made from a trained network: the most likely classes of images, with their names and probabilities."""

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from mixer_jax import parallel
from mixer_jax.checkpoints.weights import load_weights
from mixer_jax.classes import Names, has_names
from mixer_jax.config import default_config
from mixer_jax.data.images.augment import Transform
from mixer_jax.data.sources.source import Source
from mixer_jax.data.sources.unlabeled import UnlabeledFiles
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.data.stream.unreadable import UnreadableImage
from mixer_jax.errors import UserError
from mixer_jax.evaluation.answers import PROBABILITIES, most_likely
from mixer_jax.evaluation.network import Network

IMAGES_PER_DEVICE = 64  # This is the largest number of images that a device gets in one batch.
MAX_IMAGES_FOR_THREADS = 1000  # Up to this number, starting worker processes would take longer than they save.


class Prediction(NamedTuple):
    """The prediction of a model for one image.

    Attributes:
      image: the number of the image in its source.
      classes: the numbers of the most likely classes, the most likely first; empty for an unreadable image.
      probabilities: the probabilities of these classes.
      unreadable: the reason why the image cannot be read; empty if it can be read.
    """

    image: int
    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    unreadable: str = ""


class AnyNetwork(Protocol):
    """A trained model on the devices: `evaluation.network.Network` or one of an exported file.

    Attributes:
      path: the path of the model, for messages.
      class_names: the names of the classes or, if they are not known, their numbers; empty if the model has no head.
      stated_loss: the loss with which the model was trained; "" if it is not known.
      transform: what makes the model's input from an image of a source.
      notes: sentences that a user should read.
      mesh: the devices.
    """

    path: str
    class_names: Names
    stated_loss: str
    transform: Transform
    notes: list[str]
    mesh: Mesh

    def logits(self, images: jax.Array) -> jax.Array:
        """Return the logits, float32 [B, K], of images as the transform makes them."""


class Classifier:
    """A network that maps images to probabilities of named classes.

    Attributes:
      network: the network.
      class_names: the names of the classes or, if the weights do not name them, their numbers.
      loss: "softmax", whose probabilities add up to 1, or "sigmoid", whose probabilities are independent of each other.
      notes: sentences that a user should read, for example that the weights do not name their classes.
    """

    def __init__(self, network: AnyNetwork):
        """Check that the network has a head. Raises UserError if it has none."""
        path, self.network, self.class_names = network.path, network, network.class_names
        if not self.class_names:
            raise UserError(f"{path} has no head: it knows no classes. Fine-tune it first (--config.init_from).")
        self.notes = list(network.notes)
        if not has_names(self.class_names):
            self.notes.append(f"{path} does not name its {len(self.class_names)} classes: they are numbers, from 0 on.")
        self.loss = network.stated_loss
        if self.loss not in PROBABILITIES:
            self.notes.append(f"{path} does not say with which loss it was trained: probabilities are those of softmax.")
            self.loss = "softmax"

    def predict(self, source: Source, top: int = 5, *, processes: bool = True) -> Iterator[Prediction]:
        """Yield a prediction for each image of a source, in the order of the source.

        Args:
          source: the images. Their labels are not used.
          top: the number of most likely classes in a prediction.
          processes: whether many images are decoded in worker processes, as in `compute_each`.
        """
        count = min(top, len(self.class_names))

        def compute(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            return most_likely(self.network.logits(images), self.loss, count)

        for image, (answer, reason) in enumerate(compute_each(source, self.network, compute, processes=processes)):
            if reason:
                yield Prediction(image, (), (), reason)
            else:
                probabilities, classes = answer
                yield Prediction(image, tuple(classes.tolist()), tuple(probabilities.tolist()))

    def predict_files(self, files: Sequence[str], top: int = 5) -> Iterator[Prediction]:
        """Yield a prediction for each image file, in order. `top` is the number of most likely classes in a prediction."""
        return self.predict(UnlabeledFiles(files), top)


def compute_each(
    source: Source, network: AnyNetwork, compute: Callable[[jax.Array], Any], *, processes: bool = True
) -> Iterator[tuple[Any, str]]:
    """Yield (what is computed for an image, "") for each image of a source in order, or (None, the reason) if it is unreadable.

    Args:
      source: the images.
      network: the network, whose transform makes its input from the images.
      compute: what is computed: a function from its input [B, ...] to a tree of arrays [B, ...].
      processes: whether more than MAX_IMAGES_FOR_THREADS images are decoded in processes. These import the program that was
        started again, which must therefore do nothing when it is imported.
    """
    batch_size = choose_batch_size(len(source), network.mesh.size)
    loader = default_config().loader
    loader.workers = min(loader.workers, os.cpu_count() or 1)
    loader.processes = processes and loader.processes and len(source) > MAX_IMAGES_FOR_THREADS
    unreadable = Unreadable()

    def answers(first: int, computed: Any) -> Iterator[tuple[Any, str]]:
        arrays = jax.device_get(computed)
        for row, image in enumerate(range(first, min(first + batch_size, len(source)))):
            reason = unreadable.reasons.pop(image, "")
            yield (None, reason) if reason else (jax.tree.map(operator.itemgetter(row), arrays), "")

    batches = eval_batches(
        source, network.transform, loader, batch_size=batch_size, batch_indices=np.arange(batch_size), unreadable=unreadable
    )
    waiting: list[tuple[int, Any]] = []  # Holds one batch, which the device computes while the host makes the next one.
    for number, batch in enumerate(batches):
        images = parallel.to_global({"image": batch["image"]}, network.mesh)["image"]
        waiting.append((number * batch_size, compute(images)))
        if len(waiting) > 1:
            yield from answers(*waiting.pop(0))
    for first, computed in waiting:
        yield from answers(first, computed)


def choose_batch_size(num_images: int, num_devices: int) -> int:
    """Return the size of the batches in which a number of images is computed.

    Each device gets a power of two of images, at most IMAGES_PER_DEVICE, so that few programs are compiled for many calls.
    """
    per_device = -(-num_images // num_devices)
    return num_devices * min(IMAGES_PER_DEVICE, 1 << max(0, per_device - 1).bit_length())


class Unreadable:
    """The reasons why images could not be read, by the number of the image."""

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}

    def add(self, images: Iterable[UnreadableImage]) -> None:
        """Add images that could not be read."""
        self.reasons |= {record: message or "unreadable" for record, message in images}


def load_classifier(path: str) -> Classifier:
    """Return the classifier of anything that `load_weights` reads, such as a run's folder, its checkpoints/STEP, or a file.

    Raises UserError if it does not exist, if it is damaged, or if the model has no head.
    """
    return Classifier(Network(load_weights(path)))
