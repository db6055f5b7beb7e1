"""From the names and shapes of parameters to the model that has them: the inverse of making a model from `config.model`."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.models import mixer, resnet, vit

Signatures = Mapping[str, tuple[str, tuple[int, ...]]]  # {path: (dtype, shape)}
MAX_BLOCKS = 1000  # The largest model of the paper, H/14, has 32.
DISPLAY_NAMES = {"mixer": "Mixer", "vit": "ViT", "resnet": "BiT"}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A model, described by the options that make it.

    Attributes:
      family: "mixer", "vit" or "resnet".
      fields: the other fields of config.model, without those that have their default value.
      num_classes: K, or None for a model without a head.
      image_size: in pixels. For a resnet, which takes images of any size, it is the paper's 224. For a resnet with a permutation,
        it is the size of the images that are permuted.
    """

    family: str
    fields: dict[str, Any]
    num_classes: int | None
    image_size: int

    def config(self) -> ConfigDict:
        """Return the `config.model` that makes this model."""
        config = default_config().model
        config.update(self.fields | {"family": self.family})
        return config

    def options(self) -> dict[str, object]:
        """Return the options that a run of this model must have: {"model.variant": "B/16", ..., "num_classes": 1000, ...}."""
        shown = {*SHAPE_FIELDS, *self.fields}
        options = {f"model.{field}": value for field, value in self.config().items() if field in shown}
        return options | {"num_classes": self.num_classes, "image_size": self.image_size}

    @property
    def takes_any_size(self) -> bool:
        """Whether the model takes images of any size. With a permutation none does: another size has another permutation."""
        return self.family == "resnet" and "permutation" not in self.fields

    def __str__(self) -> str:
        """Return a text such as "Mixer-B/16 with 1000 classes, for 224 px"."""
        others = {name: value for name, value in self.fields.items() if name != "variant"}
        changes = " (" + ", ".join(f"{name}={value}" for name, value in others.items()) + ")" if others else ""
        classes = f"{self.num_classes} classes" if self.num_classes else "no head"
        size = "any image size" if self.takes_any_size else f"{self.image_size} px"
        return f"{DISPLAY_NAMES[self.family]}-{self.fields['variant']}{changes} with {classes}, for {size}"


# The fields of config.model that change the names or shapes of parameters. The other fields cannot be read from parameters.
SHAPE_FIELDS = (
    "family", "variant", "num_blocks", "hidden_dim", "channels_mlp_dim", "tokens_mlp_dim", "num_heads", "pooling",
    "pre_logits_dim",
)  # fmt: skip


def identify(signatures: Signatures) -> ModelSpec | None:
    """Return the model that has these parameters, or None if they are of none of our families.

    Only the few arrays that determine the model are read. The caller must compare all others with the parameters of the returned
    model.
    """
    shapes = {name: shape for name, (_, shape) in signatures.items()}
    try:
        if "MixerBlock_0/token_mixing/Dense_0/kernel" in shapes:
            return _identify_mixer(shapes)
        if "Transformer/posembed_input/pos_embedding" in shapes:
            return _identify_vit(shapes)
        if "root_block/standardized_conv2d/kernel" in shapes:
            return _identify_resnet(shapes)
    except (KeyError, IndexError, ValueError):  # An array that determines the model is missing or has another number of axes.
        return None
    return None


def _identify_mixer(shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec:
    patch, _, _, hidden_dim = shapes["stem/kernel"]
    tokens, tokens_mlp_dim = shapes["MixerBlock_0/token_mixing/Dense_0/kernel"]
    size = mixer.Size(
        num_blocks=_count_blocks(r"MixerBlock_(\d+)/", shapes),
        hidden_dim=hidden_dim,
        channels_mlp_dim=shapes["MixerBlock_0/channel_mixing/Dense_0/kernel"][1],
        tokens_mlp_dim=tokens_mlp_dim,
    )
    fields = _nearest_variant(mixer.SIZES, size, patch)
    return ModelSpec("mixer", fields, _num_outputs(shapes, "head/kernel"), round(tokens**0.5) * patch)


def _identify_vit(shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec:
    patch, _, _, hidden_dim = shapes["embedding/kernel"]
    size = vit.Size(
        num_blocks=_count_blocks(r"Transformer/encoderblock_(\d+)/", shapes),
        hidden_dim=hidden_dim,
        channels_mlp_dim=shapes["Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"][1],
        num_heads=shapes["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"][1],
    )
    fields = _nearest_variant(vit.SIZES, size, patch)
    if "cls" not in shapes:
        fields["pooling"] = "mean"
    if "pre_logits/kernel" in shapes:
        fields["pre_logits_dim"] = shapes["pre_logits/kernel"][1]
    tokens = shapes["Transformer/posembed_input/pos_embedding"][1] - ("cls" in shapes)
    return ModelSpec("vit", fields, _num_outputs(shapes, "head/kernel"), round(tokens**0.5) * patch)


def _identify_resnet(shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec | None:
    units = tuple(_count_blocks(rf"block{stage}/unit(\d+)/", shapes) for stage in (1, 2, 3, 4))
    names = [name for name, known_units in resnet.UNITS.items() if known_units == units]
    width = shapes["root_block/standardized_conv2d/kernel"][3]
    if not names:
        return None
    factor = width // resnet.WIDTH if width in [resnet.WIDTH * factor for factor in resnet.WIDTH_FACTORS] else None
    fields = {"variant": f"{names[0]}x{factor}"} if factor else {"variant": f"{names[0]}x1", "hidden_dim": width}
    return ModelSpec("resnet", fields, _num_outputs(shapes, "head/conv2d/kernel"), 224)


def _nearest_variant(sizes: Mapping, size: mixer.Size | vit.Size, patch: int) -> dict[str, Any]:
    """Return fields of config.model: the variant that has most fields in common with `size`, and the fields that differ."""

    def differing(name: str) -> dict[str, Any]:
        return {field: value for field, value in dataclasses.asdict(size).items() if getattr(sizes[name], field) != value}

    name = min(sizes, key=lambda name: len(differing(name)))
    return {"variant": f"{name}/{patch}"} | differing(name)


def _count_blocks(pattern: str, names: Iterable[str]) -> int:
    """Return the number of different block numbers that `pattern` finds in the names.

    Raises ValueError for more than MAX_BLOCKS: making such a model would take minutes.
    """
    count = len({match[1] for name in names if (match := re.match(pattern, name))})
    if count > MAX_BLOCKS:
        raise ValueError(f"{count} blocks")
    return count


def _num_outputs(shapes: Mapping[str, tuple[int, ...]], name: str) -> int | None:
    """Return the number of outputs of the kernel `name`, or None if there is none."""
    return shapes[name][-1] if name in shapes else None
