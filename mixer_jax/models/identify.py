"""From parameters to the model that has them: the inverse of registry.make_model, read from names and shapes alone."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.config import default_config
from mixer_jax.models import mixer, resnet, vit

Signatures = Mapping[str, tuple[str, tuple[int, ...]]]  # {path: (dtype, shape)}
MAX_BLOCKS = 1000  # H/14 has 32
DISPLAY_NAMES = {"mixer": "Mixer", "vit": "ViT", "resnet": "BiT"}


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """A model, as the fields of config.model that differ from their defaults, and the number of classes (None: no head)."""

    family: str
    fields: dict[str, Any]
    num_classes: int | None
    image_size: int  # pixels; that of the paper for a model that takes any

    def config(self) -> ConfigDict:
        """`config.model` of it."""
        config = default_config().model
        config.update(self.fields | {"family": self.family})
        return config

    def options(self) -> dict[str, object]:
        """What a run's config must say: {"model.variant": "B/16", ...}."""
        options = {f"model.{field}": value for field, value in self.config().items() if field in SHAPE_FIELDS}
        return options | {"num_classes": self.num_classes, "image_size": self.image_size}

    def __str__(self) -> str:
        """Such as "Mixer-B/16 with 1000 classes, for 224 px"."""
        others = {name: value for name, value in self.fields.items() if name != "variant"}
        changes = " (" + ", ".join(f"{name}={value}" for name, value in others.items()) + ")" if others else ""
        classes = f"{self.num_classes} classes" if self.num_classes else "no head"
        size = "any image size" if self.family == "resnet" else f"{self.image_size} px"
        return f"{DISPLAY_NAMES[self.family]}-{self.fields['variant']}{changes} with {classes}, for {size}"


# The fields of config.model that change the shapes of parameters. The others are not written in them.
SHAPE_FIELDS = (
    "family", "variant", "num_blocks", "hidden_dim", "channels_mlp_dim", "tokens_mlp_dim", "num_heads", "pooling",
    "pre_logits_dim",
)  # fmt: skip


def identify(signatures: Signatures) -> ModelSpec | None:
    """The model whose parameters have these names and, as far as they define it, shapes; None when it is none of ours.

    It is a guess from a few of the arrays: whether all the others fit is for a comparison with that model's own to say.
    """
    shapes = {name: shape for name, (_, shape) in signatures.items()}
    try:
        if "MixerBlock_0/token_mixing/Dense_0/kernel" in shapes:
            return _mixer(shapes)
        if "Transformer/posembed_input/pos_embedding" in shapes:
            return _vit(shapes)
        if "root_block/standardized_conv2d/kernel" in shapes:
            return _resnet(shapes)
    except (KeyError, IndexError, ValueError):  # an array that defines the model is missing, or has other axes
        return None
    return None


def _mixer(shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec:
    patch, _, _, hidden_dim = shapes["stem/kernel"]
    tokens, tokens_mlp_dim = shapes["MixerBlock_0/token_mixing/Dense_0/kernel"]
    size = mixer.Size(
        num_blocks=_count(r"MixerBlock_(\d+)/", shapes),
        hidden_dim=hidden_dim,
        channels_mlp_dim=shapes["MixerBlock_0/channel_mixing/Dense_0/kernel"][1],
        tokens_mlp_dim=tokens_mlp_dim,
    )
    fields = _nearest(mixer.SIZES, size, patch)
    return ModelSpec("mixer", fields, _last(shapes, "head/kernel"), round(tokens**0.5) * patch)


def _vit(shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec:
    patch, _, _, hidden_dim = shapes["embedding/kernel"]
    size = vit.Size(
        num_blocks=_count(r"Transformer/encoderblock_(\d+)/", shapes),
        hidden_dim=hidden_dim,
        channels_mlp_dim=shapes["Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"][1],
        num_heads=shapes["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"][1],
    )
    fields = _nearest(vit.SIZES, size, patch)
    if "cls" not in shapes:
        fields["pooling"] = "mean"
    if "pre_logits/kernel" in shapes:
        fields["pre_logits_dim"] = shapes["pre_logits/kernel"][1]
    tokens = shapes["Transformer/posembed_input/pos_embedding"][1] - ("cls" in shapes)
    return ModelSpec("vit", fields, _last(shapes, "head/kernel"), round(tokens**0.5) * patch)


def _resnet(shapes: Mapping[str, tuple[int, ...]]) -> ModelSpec | None:
    units = tuple(_count(rf"block{stage}/unit(\d+)/", shapes) for stage in (1, 2, 3, 4))
    names = [name for name, table_units in resnet.UNITS.items() if table_units == units]
    root = shapes["root_block/standardized_conv2d/kernel"][3]
    if not names:
        return None
    known = {resnet.WIDTH * factor: factor for factor in resnet.WIDTH_FACTORS}
    fields = {"variant": f"{names[0]}x{known[root]}"} if root in known else {"variant": f"{names[0]}x1", "hidden_dim": root}
    return ModelSpec("resnet", fields, _last(shapes, "head/conv2d/kernel"), 224)


def _nearest(sizes: Mapping, size: mixer.Size | vit.Size, patch: int) -> dict[str, Any]:
    """The variant with the most fields in common, and the fields in which `size` differs from it."""
    found = dataclasses.asdict(size)

    def differing(name: str) -> dict[str, Any]:
        return {field: value for field, value in found.items() if getattr(sizes[name], field) != value}

    name = min(sizes, key=lambda name: len(differing(name)))
    return {"variant": f"{name}/{patch}"} | differing(name)


def _count(pattern: str, names: Iterable[str]) -> int:
    """Return how many blocks there are. Raises ValueError for more than any model has: making one would take minutes."""
    count = len({match[1] for name in names if (match := re.match(pattern, name))})
    if count > MAX_BLOCKS:
        raise ValueError(f"{count} blocks")
    return count


def _last(shapes: Mapping[str, tuple[int, ...]], name: str) -> int | None:
    return shapes[name][-1] if name in shapes else None
