"""The Python API: `mixer_jax.load` and the `Model` that it returns. docs/python.md shows how to use them."""

import contextlib
import copy
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mixer_jax.checkpoints.run_paths import config_file
from mixer_jax.checkpoints.weights import Weights, load_weights
from mixer_jax.classes import Names, label
from mixer_jax.config import default_config
from mixer_jax.config_files import read_run_config
from mixer_jax.data.images.decode import UnreadableImageError
from mixer_jax.data.sources.given_images import ACCEPTED, GivenImages, OneImage, is_one_image
from mixer_jax.errors import UserError
from mixer_jax.evaluation.classifier import IMAGES_PER_DEVICE, Classifier, compute_each
from mixer_jax.evaluation.network import Network
from mixer_jax.evaluation.preprocessing import Preprocessing
from mixer_jax.export.exported import ExportedNetwork, is_exported

Images = OneImage | Iterable[OneImage]
"""One image: the path of a file, the bytes of a file, a PIL image, or a uint8 array [height, width, 3] of any size. Or several: a
list, a generator or another iterable of such images, or a uint8 array [N, height, width, 3]."""


@dataclasses.dataclass(frozen=True, repr=False)
class Prediction:
    """The most likely classes of one image, the most likely first.

    Attributes:
      class_names: their names.
      class_numbers: their numbers, from 0 on.
      probabilities: their probabilities.
    """

    class_names: tuple[str, ...]
    class_numbers: tuple[int, ...]
    probabilities: tuple[float, ...]

    def __repr__(self) -> str:
        shares = zip(self.class_names, self.probabilities, strict=True)
        return f"Prediction({', '.join(f'{label(name)} {share:.1%}' for name, share in shares)})"


class Model:
    """A trained model, which `mixer_jax.load` returns.

    Images are prepared as the evaluators prepare them. They are decoded by threads and computed in batches of limited size, so
    that a generator may yield more images than fit into memory. Arrays that are returned have the axis N of the images also for
    one image.

    Attributes:
      path: what was loaded.
      class_names: the names of the classes, in the order of their numbers. Classes without names have their numbers as names.
        Empty for a model without a head.
      config: a ConfigDict with what is known of the config: of a run all options, of a file `model` (family, variant, ...),
        `num_classes` and `image_size`. It is a copy, and changing it does not change the model.
      preprocessing: how an image becomes the pixels that the model sees: resize, resize_size and image_size.
      notes: sentences about what is not known of the model, for example the names of its classes. Read them once.
    """

    def __init__(self, network: Network | ExportedNetwork, config: ConfigDict, description: str):
        self.path: str = network.path
        self.class_names: Names = network.class_names
        self.config = config
        self.preprocessing: Preprocessing = network.preprocessing
        self._network, self._description = network, description
        self._classifier = Classifier(network) if network.class_names else None
        self.notes: list[str] = self._classifier.notes if self._classifier else network.notes

    def __repr__(self) -> str:
        notes = f"; {len(self.notes)} in .notes" if self.notes else ""
        return f"<{self._description}, from {self.path}{notes}>"

    def predict(self, images: Images, top: int = 5) -> Prediction | list[Prediction]:
        """Return the most likely classes of images, with their probabilities.

        Args:
          images: one image or several: paths, bytes of files, PIL images or uint8 arrays [height, width, 3], of any sizes.
          top: the number of classes in a prediction. All classes are given if there are fewer.

        Returns:
          A Prediction for one image, and a list of them for several.

        Raises:
          UserError: the model has no head, or an image cannot be read. The message names the image.
        """
        if self._classifier is None:
            raise UserError(f"{self.path} has no head: it knows no classes. Fine-tune it first; features() needs no head.")
        if top < 1:
            raise UserError(f"top is {top}: a prediction has at least one class.")
        predictions = []
        for source in self._sources(images):
            for found in self._classifier.predict(source, top, processes=False):
                if found.unreadable:
                    raise _unreadable(source, found.image, found.unreadable)
                names = tuple(self.class_names[number] for number in found.classes)
                predictions.append(Prediction(names, found.classes, found.probabilities))
        return predictions[0] if is_one_image(images) else predictions

    def logits(self, images: Images) -> np.ndarray:
        """Return the logits of images, float32 [N, K] for K classes. The images are those of `predict`."""
        if not self.class_names:
            raise UserError(f"{self.path} has no head, and therefore no logits. features() needs no head.")
        rows = list(self._compute(images, self._network.logits))
        return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), np.float32)

    def features(self, images: Images, names: str | Sequence[str] = "pre_logits") -> dict[str, np.ndarray]:
        """Return what the model computes on the way to its logits.

        Args:
          images: one image or several, as for `predict`.
          names: which features; `feature_shapes` has all names. "pre_logits" is what the head sees.

        Returns:
          {name: float32 [N, ...]}. Of a Mixer, "stem" and "MixerBlock_i" are [N, S, C] for S patches and C channels, and
          "pre_logits" is [N, C].

        Raises:
          UserError: the model has no such features, it was exported, or an image cannot be read.
        """
        network, names = self._own_network("features"), (names,) if isinstance(names, str) else tuple(names)
        if unknown := [name for name in names if name not in network.feature_shapes]:
            raise UserError(f"{self.path} has no features {unknown[0]!r}: there are {', '.join(network.feature_shapes)}.")
        rows = list(self._compute(images, lambda batch: network.features(batch, names)))
        if not rows:
            return {name: np.zeros((0, *network.feature_shapes[name]), np.float32) for name in names}
        return {name: np.stack([row[name] for row in rows]) for name in names}

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        """The names of all features, in the order in which they are computed, with their shapes for one image."""
        return dict(self._own_network("features").feature_shapes)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters: a tree of float32 arrays whose names are those of the released weights.

        For example, model.params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"] is [S, D_S].
        """
        return self._own_network("params").params

    def preprocess(self, images: Images) -> np.ndarray:
        """Return the pixels that the model sees, uint8 [N, image_size, image_size, 3]. The images are those of `predict`.

        If the model has a permutation (config.model.permutation), they are those before it.
        """
        transform, max_pixels = self.preprocessing.transform(), default_config().loader.max_pixels
        pixels = []
        for source in self._sources(images):
            for index in range(len(source)):
                try:
                    decoded = source[index].decode(max_pixels, strict=False).image
                except UnreadableImageError as error:
                    raise _unreadable(source, index, str(error)) from error
                pixels.append(transform(decoded, np.random.default_rng(0)))
        size = self.preprocessing.image_size
        return np.stack(pixels) if pixels else np.zeros((0, size, size, 3), np.uint8)

    def _own_network(self, what: str) -> Network:
        """Return the network. Raises UserError if it was exported: such a file gives nothing but logits."""
        if isinstance(self._network, ExportedNetwork):
            raise UserError(f"{self.path} is an exported program, which has no {what}: load the weights that it was made from.")
        return self._network

    def _compute(self, images: Images, compute: Callable[[jax.Array], Any]) -> Iterator[Any]:
        """Yield what `compute` returns for each image. Raises UserError for an image that cannot be read."""
        for source in self._sources(images):
            for index, (answer, reason) in enumerate(compute_each(source, self._network, compute, processes=False)):
                if reason:
                    raise _unreadable(source, index, reason)
                yield answer

    def _sources(self, images: Images) -> Iterator[GivenImages]:
        """Yield the images as sources: one if their number is known, and otherwise one for each batch."""
        if is_one_image(images):
            yield GivenImages([images])
        elif isinstance(images, Sequence | np.ndarray):
            yield GivenImages(images)
        elif isinstance(images, Iterable):
            rest, first, size = iter(images), 0, IMAGES_PER_DEVICE * self._network.mesh.size
            while part := list(itertools.islice(rest, size)):
                yield GivenImages(part, first)
                first += len(part)
        else:
            raise UserError(f"Images cannot be of the type {type(images).__name__}: {ACCEPTED}, or an iterable of these.")


def load(path: str | os.PathLike) -> Model:
    """Load a trained model.

    Args:
      path: one of the following:
        a run's folder, of which the newest checkpoint is loaded, RUN/checkpoints/STEP, or RUN/best;
        a file of weights or an index of several, in any format that `train.py --config.init_from` takes, also at a URL;
        "released:imagenet21k/Mixer-B_16" or another name of `python -m mixer_jax weights list`, which is downloaded once;
        "hf://OWNER/NAME" for weights on the Hugging Face Hub, which needs the extra `hub`;
        a StableHLO file that `python -m mixer_jax export` wrote. It is a program: load only those of people whom you trust.

    Returns:
      The model, on all devices of this machine; an exported file on one.

    Raises:
      UserError: there is no such file, it is damaged, or it is in no format that we know.
    """
    path = os.path.expanduser(os.fspath(path))
    if is_exported(Path(path)):
        exported = ExportedNetwork(path)
        return Model(exported, _config_of_file(exported.recorded("config")), str(exported.metadata.get("model", "A model")))
    weights = load_weights(path)
    network = Network(weights)
    return Model(network, _config_of(weights, network), str(weights.model))


def _config_of(weights: Weights, network: Network) -> ConfigDict:
    """Return the config of a run or, if it is not known, what the parameters tell of it."""
    if weights.format == "run":
        with contextlib.suppress(UserError):  # `convert` makes runs without a config.
            return read_run_config(Path(config_file(weights.path)))
    model = copy.deepcopy(network.config)
    return ConfigDict({"model": model, "num_classes": weights.model.num_classes, "image_size": weights.model.image_size}).lock()


def _config_of_file(options: Any) -> ConfigDict:
    """Return the config of an exported file from its options {"model.variant": "B/16", ..., "num_classes": 10, ...}."""
    config = ConfigDict({"model": {}})
    for name, value in options.items() if isinstance(options, dict) else ():
        part = config.model if name.startswith("model.") else config
        part[name.removeprefix("model.")] = value
    return config.lock()


def _unreadable(source: GivenImages, index: int, reason: str) -> UserError:
    return UserError(f"{source.locate(index)} is {reason}.")
