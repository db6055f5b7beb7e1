"""A trained model on the devices, with what a user must know to give it images and to read its answers."""

import functools

import jax

from mixer_jax import parallel
from mixer_jax.checkpoints.weights import Weights, preprocessing_of, range_note, tree_of
from mixer_jax.errors import UserError
from mixer_jax.evaluation.predict import make_features, make_predict
from mixer_jax.evaluation.preprocessing import Preprocessing, read_preprocessing, size_note
from mixer_jax.models.registry import host_transform, make_model
from mixer_jax.options import FLOATS


class Network:
    """A trained model on the devices.

    Attributes:
      path: the path of the weights, for messages.
      class_names: the names of the classes or, if the weights do not name them, their numbers; empty if there is no head.
      stated_loss: the loss with which the model was trained, as the weights state it; "" if they do not.
      config: the config.model of the model.
      preprocessing: how an image becomes the pixels that the model sees.
      transform: what makes the model's input from an image of a source.
      notes: sentences that a user should read, for example that the range of pixels is not known.
      mesh: the devices.
      params: the parameters, as a tree of arrays on the devices.
    """

    def __init__(self, weights: Weights):
        """Load the weights onto the devices. Raises UserError if their description is damaged."""
        spec = weights.model
        self.path, self.class_names, self.notes = weights.path, weights.class_names, list[str]()
        self.stated_loss = weights.metadata.get("loss", "")
        self.preprocessing = self._fit_preprocessing(weights)
        self.config = spec.config()
        self.config.dtype = weights.metadata.get("dtype", self.config.dtype)
        if self.config.dtype not in FLOATS:
            raise UserError(f"{self.path} says that its dtype is {self.config.dtype!r}: it is damaged, or not of this version.")
        self.transform = self.preprocessing.transform(host_transform(self.config))
        self.mesh = parallel.make_mesh(1)
        shardings = parallel.state_sharding(tree_of(weights.arrays), self.mesh, parallel.GATHERED_AXES)
        self.params = jax.tree.map(parallel.from_host, tree_of(weights.arrays), shardings)
        model = make_model(self.config, spec.num_classes)
        self._predict = jax.jit(make_predict(model, self.mesh))
        self._features = make_features(model, self.mesh)
        self._compiled_features = jax.jit(self._features, static_argnames="names")

    def logits(self, images: jax.Array) -> jax.Array:
        """Return the logits, float32 [B, K], of images as the transform makes them."""
        return self._predict(self.params, images)[0]

    def features(self, images: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
        """Return the features of these names, float32 [B, ...], of images as the transform makes them."""
        return self._compiled_features(self.params, images, names=names)

    @functools.cached_property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all features of one image, by name, in the order in which the model computes them."""
        names: list[str] = []

        def all_features(params: parallel.Params, images: jax.Array) -> dict[str, jax.Array]:
            features = self._features(params, images, names=None)
            names.extend(features)
            return features

        images = jax.ShapeDtypeStruct((1, *self.preprocessing.blank(self.transform).shape), "uint8")
        shapes = jax.eval_shape(all_features, self.params, images)
        return {name: shapes[name].shape[1:] for name in names}  # JAX sorts the names of a dict.

    def _fit_preprocessing(self, weights: Weights) -> Preprocessing:
        """Return the preprocessing that the weights state, at the image size that their parameters are for."""
        spec, stated = weights.model, read_preprocessing(preprocessing_of(weights), weights.path)
        image_size = stated.image_size if spec.takes_any_size else spec.image_size
        self.notes += filter(None, (size_note(stated, image_size, weights.path), range_note(weights)))
        return stated.at_size(image_size)
