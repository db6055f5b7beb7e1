"""A classifier made from trained weights: the model, the preprocessing of its evaluators, and the names of its classes."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mixer_jax import parallel
from mixer_jax.checkpoints.weights import Weights, load_weights, preprocessing_of, range_note, tree_of
from mixer_jax.classes import Names, has_names
from mixer_jax.config import FLOATS, RESIZES, default_config
from mixer_jax.data.images.augment import Transform, eval_transform
from mixer_jax.data.sources.source import Source
from mixer_jax.data.sources.unlabeled import UnlabeledFiles
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.data.stream.unreadable import UnreadableImage
from mixer_jax.errors import UserError
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.models.registry import host_transform, make_model

IMAGES_PER_DEVICE = 64  # This is the largest number of images that a device gets in one batch.
MAX_IMAGES_FOR_THREADS = 1000  # Up to this number, starting worker processes would take longer than they save.
PROBABILITIES = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}  # The keys are values of config.loss.kind.


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


class Classifier:
    """A model with its weights, which maps images to probabilities of named classes.

    Attributes:
      class_names: the names of the classes or, if the weights do not name them, their numbers.
      image_size: height and width of the images that the model sees.
      loss: "softmax", whose probabilities add up to 1, or "sigmoid", whose probabilities are independent of each other.
      notes: sentences that a user should read, for example that the weights do not name their classes.
      transform: what makes an image for the model from the image of a source.
    """

    def __init__(self, weights: Weights):
        """Load the weights onto the devices. Raises UserError if they have no head, or if their description is damaged."""
        model = weights.model
        if not model.num_classes:
            raise UserError(f"{weights.path} has no head: it knows no classes. Fine-tune it first (--config.init_from).")
        self.class_names: Names = weights.class_names
        self.notes: list[str] = []
        if not has_names(self.class_names):
            self.notes.append(f"{weights.path} does not name its {len(self.class_names)} classes: they are numbers, from 0 on.")
        self.loss = self._choose_loss(weights)
        self.image_size, self.transform = self._make_transform(weights)
        config = model.config()
        config.dtype = weights.metadata.get("dtype", config.dtype)
        if config.dtype not in FLOATS:
            raise UserError(f"{weights.path} says that its dtype is {config.dtype!r}: it is damaged, or not of this version.")
        self._mesh = parallel.make_mesh(1)
        shardings = parallel.state_sharding(tree_of(weights.arrays), self._mesh, parallel.GATHERED_AXES)
        self._params = jax.tree.map(parallel.from_host, tree_of(weights.arrays), shardings)
        self._predict = make_predict(make_model(config, model.num_classes), self._mesh)

    def predict(self, source: Source, top: int = 5, *, workers: int | None = None) -> Iterator[Prediction]:
        """Yield a prediction for each image of a source, in the order of the source.

        Args:
          source: the images. Their labels are not used.
          top: the number of most likely classes in a prediction.
          workers: the number of workers that decode; by default the number in `default_config()`, but at most one per CPU core.
        """
        batch_size = self._mesh.size * min(IMAGES_PER_DEVICE, -(-len(source) // self._mesh.size))
        loader = default_config().loader
        loader.workers = workers or min(loader.workers, os.cpu_count() or 1)
        loader.processes = loader.processes and len(source) > MAX_IMAGES_FOR_THREADS
        unreadable, count = Unreadable(), min(top, len(self.class_names))

        @jax.jit
        def most_likely(params: parallel.Params, images: jax.Array) -> Any:
            return jax.lax.top_k(PROBABILITIES[self.loss](self._predict(params, images)[0]), count)

        def predictions(first: int, answers: tuple[jax.Array, jax.Array]) -> Iterator[Prediction]:
            probabilities, classes = (x.tolist() for x in jax.device_get(answers))
            for row, image in enumerate(range(first, min(first + batch_size, len(source)))):
                reason = unreadable.reasons.pop(image, "")
                yield (
                    Prediction(image, (), (), reason)
                    if reason
                    else Prediction(image, tuple(classes[row]), tuple(probabilities[row]))
                )

        batches = eval_batches(
            source, self.transform, loader, batch_size=batch_size, batch_indices=np.arange(batch_size), unreadable=unreadable
        )
        waiting: list[tuple[int, Any]] = []  # Holds one batch, which the device computes while the host makes the next one.
        for number, batch in enumerate(batches):
            images = parallel.to_global({"image": batch["image"]}, self._mesh)["image"]
            waiting.append((number * batch_size, most_likely(self._params, images)))
            if len(waiting) > 1:
                yield from predictions(*waiting.pop(0))
        for first, answers in waiting:
            yield from predictions(first, answers)

    def predict_files(self, files: Sequence[str], top: int = 5) -> Iterator[Prediction]:
        """Yield a prediction for each image file, in order. `top` is the number of most likely classes in a prediction."""
        return self.predict(UnlabeledFiles(files), top)

    def _choose_loss(self, weights: Weights) -> str:
        """Return the loss with which the weights were trained. If it is not known, note that and return "softmax"."""
        loss = weights.metadata.get("loss", "")
        if loss in PROBABILITIES:
            return loss
        self.notes.append(f"{weights.path} does not say with which loss it was trained: probabilities are those of softmax.")
        return "softmax"

    def _make_transform(self, weights: Weights) -> tuple[int, Transform]:
        """Return the size of the images that the model sees, and the transform that makes such images."""
        model, steps = weights.model, preprocessing_of(weights)
        resize, resize_size, image_size = (steps.get(name) for name in ("resize", "resize_size", "central_crop"))
        sizes = [size for size in (resize_size, image_size) if isinstance(size, int) and 1 <= size < 2**14]
        if resize not in RESIZES or len(sizes) < 2 or image_size > resize_size:
            raise UserError(f"{weights.path}: its description of the preprocessing is damaged: {json.dumps(steps)[:200]}.")
        if model.family != "resnet" and image_size != model.image_size:  # A ResNet takes images of any size.
            self.notes.append(
                f"{weights.path} names images of {image_size} px, and its parameters are for {model.image_size}: it is given "
                f"images of {model.image_size} px."
            )
            resize_size, image_size = round(resize_size * model.image_size / image_size), model.image_size
        if note := range_note(weights):
            self.notes.append(note)
        return image_size, eval_transform(resize, resize_size, image_size, host_transform(model.config()))


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
    return Classifier(load_weights(path))
