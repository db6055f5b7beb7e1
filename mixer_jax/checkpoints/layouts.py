"""The names and axes under which other code stores the parameters of our models; from theirs to ours and back, bit for bit.

Our own trees are those of the released .npz files (paper of Mixer and of ViT; BiT without its leading "resnet/"), so "released"
changes next to nothing. The layouts are tables: a row says which arrays of ours are which array of theirs, and how to turn them.

    released       vision_transformer and big_transfer, .npz
    internal       older Mixer files of the authors' own: Mixer/encoderblock_0/token_mixing_phase_0/kernel1, ...
    timm           PyTorch names of timm, as on the Hugging Face hub: blocks.0.mlp_tokens.fc1.weight, ...
    transformers   those of Hugging Face's transformers, which has ViT and BiT: vit.encoder.layer.0.layernorm_before.weight, ...
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mixer_jax.config import UserError
from mixer_jax.models.vit import heads_of

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Row:
    """`theirs = join(*ours)` and `ours = split(theirs)`."""

    ours: tuple[str, ...]
    theirs: str
    join: Callable[..., np.ndarray]
    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one family lies in files of one kind.

    `rows(blocks)` is the table for a model with these blocks: (i,) or (stage, unit), counted from 0, which the patterns
    `our_block` and `their_block` find in names that count from `our_first` and `their_first`.
    """

    name: str
    family: str
    sign: str  # a name that every such file has, and no other layout
    rows: Callable[[list[tuple[int, ...]]], Iterable[Row]]
    our_block: str
    their_block: str
    our_first: int = 0
    their_first: int = 0
    spellings: tuple[tuple[str, str], ...] = ()  # (pattern, the usual): other spellings of names that files are found with

    def to_ours(self, arrays: Arrays) -> Arrays:
        """Raises UserError for an array that this layout does not have, or whose axes are not those of its place."""
        arrays = {self._usual(name): array for name, array in arrays.items()}
        rows = {row.theirs: row for row in self.rows(_blocks(self.their_block, arrays, self.their_first))}
        unknown = sorted(arrays.keys() - rows.keys())
        if unknown:
            raise UserError(f"These arrays have no place in a {self.family} of the {self.name} layout: {', '.join(unknown)}.")
        ours = {}
        for theirs, array in arrays.items():
            try:
                ours |= zip(rows[theirs].ours, map(np.ascontiguousarray, rows[theirs].split(array)), strict=True)
            except ValueError as error:
                raise UserError(f"{theirs} has shape {array.shape}, which cannot be: {error}.") from error
        return ours

    def to_theirs(self, arrays: Arrays) -> Arrays:
        """The inverse."""
        rows = [row for row in self.rows(_blocks(self.our_block, arrays, self.our_first)) if row.ours[0] in arrays]
        return {row.theirs: np.ascontiguousarray(row.join(*(arrays[name] for name in row.ours))) for row in rows}

    def _usual(self, name: str) -> str:
        for pattern, usual in self.spellings:
            name = re.sub(pattern, usual, name)
        return name


def find_layout(names: Iterable[str]) -> Layout | None:
    """The layout in which a file with these names lies."""
    names = set(names)
    return next((layout for layout in LAYOUTS if layout.sign in names), None)


def get_layout(name: str, family: str) -> Layout:
    """Raises UserError when there is none of this name for the family."""
    for layout in LAYOUTS:
        if (layout.name, layout.family) == (name, family):
            return layout
    known = [layout.name for layout in LAYOUTS if layout.family == family]
    raise UserError(f"There is no layout {name!r} for a {family}: choose one of {', '.join(known)}.")


def _blocks(pattern: str, names: Iterable[str], first: int) -> list[tuple[int, ...]]:
    found = {tuple(int(number) - first for number in match.groups()) for name in names if (match := re.match(pattern, name))}
    return sorted(found)


# How an array of theirs is turned into one of ours, and back.


def same(ours: str, theirs: str) -> Row:
    return Row((ours,), theirs, lambda x: x, lambda x: (x,))


def dense(ours: str, theirs: str) -> Iterator[Row]:
    """[in, out] here, [out, in] in PyTorch."""
    yield Row((f"{ours}/kernel",), f"{theirs}.weight", lambda x: x.transpose(1, 0), lambda x: (x.transpose(1, 0),))
    yield same(f"{ours}/bias", f"{theirs}.bias")


def conv(ours: str, theirs: str, *, bias: bool = True) -> Iterator[Row]:
    """[height, width, in, out] here, [out, in, height, width] in PyTorch."""
    yield Row((f"{ours}/kernel",), f"{theirs}.weight", lambda x: x.transpose(3, 2, 0, 1), lambda x: (x.transpose(2, 3, 1, 0),))
    if bias:
        yield same(f"{ours}/bias", f"{theirs}.bias")


def norm(ours: str, theirs: str, scale: str = "scale", bias: str = "bias") -> Iterator[Row]:
    yield same(f"{ours}/{scale}", f"{theirs}.weight")
    yield same(f"{ours}/{bias}", f"{theirs}.bias")


def squeezed(ours: str, theirs: str) -> Row:
    """Stored with axes of length 1 by some files. Written without."""
    return Row((ours,), theirs, lambda x: x, lambda x: (x.squeeze(),))


# The tables.


def mixer_released(blocks: list) -> Iterator[Row]:
    dense_arrays = [f"{mlp}/Dense_{i}/{array}" for mlp in ("token_mixing", "channel_mixing") for i in (0, 1) for array in PAIR]
    norm_arrays = [f"LayerNorm_{i}/{array}" for i in (0, 1) for array in NORM]
    names = [f"MixerBlock_{i}/{name}" for (i,) in blocks for name in dense_arrays + norm_arrays]
    names += [f"{name}/{array}" for name in ("stem", "head") for array in PAIR] + [
        f"pre_head_layer_norm/{array}" for array in NORM
    ]
    return (same(name, name) for name in names)


PAIR, NORM = ("kernel", "bias"), ("scale", "bias")


def mixer_internal(blocks: list) -> Iterator[Row]:
    for array in PAIR:
        yield same(f"stem/{array}", f"embedding/{array}")
        yield same(f"head/{array}", f"head/{array}")
    for array in NORM:
        yield same(f"pre_head_layer_norm/{array}", f"Mixer/encoder_norm/{array}")
    for (i,) in blocks:
        ours, theirs = f"MixerBlock_{i}", f"Mixer/encoderblock_{i}"
        for k in (0, 1):
            for array in NORM:
                yield same(f"{ours}/LayerNorm_{k}/{array}", f"{theirs}/LayerNorm_{k}/{array}")
            for mixing in ("token_mixing", "channel_mixing"):
                for array in PAIR:
                    yield squeezed(f"{ours}/{mixing}/Dense_{k}/{array}", f"{theirs}/{mixing}_phase_0/{array}{k + 1}")


def mixer_timm(blocks: list) -> Iterator[Row]:
    yield from conv("stem", "stem.proj")
    for (i,) in blocks:
        ours, theirs = f"MixerBlock_{i}", f"blocks.{i}"
        yield from norm(f"{ours}/LayerNorm_0", f"{theirs}.norm1")
        yield from norm(f"{ours}/LayerNorm_1", f"{theirs}.norm2")
        for k in (0, 1):
            yield from dense(f"{ours}/token_mixing/Dense_{k}", f"{theirs}.mlp_tokens.fc{k + 1}")
            yield from dense(f"{ours}/channel_mixing/Dense_{k}", f"{theirs}.mlp_channels.fc{k + 1}")
    yield from norm("pre_head_layer_norm", "norm")
    yield from dense("head", "head")


def vit_released(blocks: list) -> Iterator[Row]:
    attention = [f"MultiHeadDotProductAttention_1/{part}/{array}" for part in ("query", "key", "value", "out") for array in PAIR]
    mlp = [f"MlpBlock_3/Dense_{i}/{array}" for i in (0, 1) for array in PAIR]
    norms = [f"LayerNorm_{i}/{array}" for i in (0, 2) for array in NORM]
    names = [f"Transformer/encoderblock_{i}/{name}" for (i,) in blocks for name in attention + mlp + norms]
    names += [f"{name}/{array}" for name in ("embedding", "pre_logits", "head") for array in PAIR]
    names += ["cls", "Transformer/posembed_input/pos_embedding", *(f"Transformer/encoder_norm/{array}" for array in NORM)]
    return (same(name, name) for name in names)


def vit_timm(blocks: list) -> Iterator[Row]:
    yield same("cls", "cls_token")
    yield same("Transformer/posembed_input/pos_embedding", "pos_embed")
    yield from conv("embedding", "patch_embed.proj")
    for (i,) in blocks:
        ours, theirs = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        yield from norm(f"{ours}/LayerNorm_0", f"{theirs}.norm1")
        yield from norm(f"{ours}/LayerNorm_2", f"{theirs}.norm2")
        yield from attention(f"{ours}/MultiHeadDotProductAttention_1", f"{theirs}.attn")
        for k in (0, 1):
            yield from dense(f"{ours}/MlpBlock_3/Dense_{k}", f"{theirs}.mlp.fc{k + 1}")
    yield from norm("Transformer/encoder_norm", "norm")
    yield from dense("pre_logits", "pre_logits.fc")
    yield from dense("head", "head")


def attention(ours: str, theirs: str) -> Iterator[Row]:
    """timm has query, key and value below one another in one matrix, and the heads side by side in its rows.

    The number of heads is not in such a file: it is taken to be that of the ViT papers (models/vit.heads_of).
    """
    parts = [f"{ours}/{part}" for part in ("query", "key", "value")]
    yield Row(
        tuple(f"{part}/kernel" for part in parts),
        f"{theirs}.qkv.weight",
        lambda *kernels: np.concatenate([heads_joined(kernel) for kernel in kernels]),
        lambda weight: tuple(heads_split(part) for part in np.split(weight, 3)),
    )
    yield Row(
        tuple(f"{part}/bias" for part in parts),
        f"{theirs}.qkv.bias",
        lambda *biases: np.concatenate([bias.reshape(-1) for bias in biases]),
        lambda bias: tuple(part.reshape(heads_of(part.size), -1) for part in np.split(bias, 3)),
    )
    yield from attention_out(f"{ours}/out", f"{theirs}.proj")


def attention_out(ours: str, theirs: str) -> Iterator[Row]:
    yield Row(
        (f"{ours}/kernel",),  # [heads, head_dim, out]
        f"{theirs}.weight",
        lambda kernel: kernel.reshape(-1, kernel.shape[2]).T,
        lambda weight: (weight.T.reshape(heads_of(weight.shape[1]), -1, weight.shape[0]),),
    )
    yield same(f"{ours}/bias", f"{theirs}.bias")


def heads_joined(kernel: np.ndarray) -> np.ndarray:
    """[in, heads, head_dim] -> [heads x head_dim, in]."""
    return kernel.reshape(kernel.shape[0], -1).T


def heads_split(weight: np.ndarray) -> np.ndarray:
    """The inverse, of a square matrix."""
    width = weight.shape[1]
    return weight.T.reshape(width, heads_of(width), -1)


def vit_transformers(blocks: list) -> Iterator[Row]:
    yield same("cls", "vit.embeddings.cls_token")
    yield same("Transformer/posembed_input/pos_embedding", "vit.embeddings.position_embeddings")
    yield from conv("embedding", "vit.embeddings.patch_embeddings.projection")
    for (i,) in blocks:
        ours, theirs = f"Transformer/encoderblock_{i}", f"vit.encoder.layer.{i}"
        yield from norm(f"{ours}/LayerNorm_0", f"{theirs}.layernorm_before")
        yield from norm(f"{ours}/LayerNorm_2", f"{theirs}.layernorm_after")
        mixing = f"{ours}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            place = f"{theirs}.attention.attention.{part}"
            kernel = (f"{mixing}/{part}/kernel",)
            yield Row(kernel, f"{place}.weight", heads_joined, lambda weight: (heads_split(weight),))
            bias = (f"{mixing}/{part}/bias",)
            yield Row(bias, f"{place}.bias", np.ravel, lambda bias: (bias.reshape(heads_of(bias.size), -1),))
        yield from attention_out(f"{mixing}/out", f"{theirs}.attention.output.dense")
        yield from dense(f"{ours}/MlpBlock_3/Dense_0", f"{theirs}.intermediate.dense")
        yield from dense(f"{ours}/MlpBlock_3/Dense_1", f"{theirs}.output.dense")
    yield from norm("Transformer/encoder_norm", "vit.layernorm")
    yield from dense("pre_logits", "vit.pooler.dense")
    yield from dense("head", "classifier")


def resnet_released(blocks: list) -> Iterator[Row]:
    norm_arrays = [f"group_norm/{array}" for array in ("gamma", "beta")]
    names = ["root_block/standardized_conv2d/kernel", *norm_arrays, *(f"head/conv2d/{array}" for array in PAIR)]
    for stage, unit in blocks:
        place = f"block{stage + 1}/unit{unit + 1:02d}"
        names += [f"{place}/{part}/{array}" for part in "abc" for array in ["standardized_conv2d/kernel", *norm_arrays]]
        names.append(f"{place}/a/proj/standardized_conv2d/kernel")
    return (same(name, f"resnet/{name}") for name in names)


def resnet_timm(blocks: list) -> Iterator[Row]:
    yield from conv("root_block/standardized_conv2d", "stem.conv", bias=False)
    for stage, unit in blocks:
        ours, theirs = f"block{stage + 1}/unit{unit + 1:02d}", f"stages.{stage}.blocks.{unit}"
        for i, part in enumerate("abc", start=1):
            yield from conv(f"{ours}/{part}/standardized_conv2d", f"{theirs}.conv{i}", bias=False)
            yield from norm(f"{ours}/{part}/group_norm", f"{theirs}.norm{i}", "gamma", "beta")
        yield from conv(f"{ours}/a/proj/standardized_conv2d", f"{theirs}.downsample.conv", bias=False)
    yield from norm("group_norm", "norm", "gamma", "beta")
    yield from conv("head/conv2d", "head.fc")


def resnet_transformers(blocks: list) -> Iterator[Row]:
    prefixes = (("stem.conv", "bit.embedder.convolution"), ("stages.", "bit.encoder.stages."), ("norm.", "bit.norm."))
    for row in resnet_timm(blocks):
        if row.theirs.startswith("head.fc."):
            continue
        old, new = next((old, new) for old, new in prefixes if row.theirs.startswith(old))
        theirs = row.theirs.replace(old, new, 1).replace(".blocks.", ".layers.")
        yield dataclasses.replace(row, theirs=theirs)
    yield Row(
        ("head/conv2d/kernel",), "classifier.1.weight", lambda kernel: kernel[0, 0].T, lambda weight: (weight.T[None, None],)
    )
    yield same("head/conv2d/bias", "classifier.1.bias")


MIXER, VIT, RESNET = r"MixerBlock_(\d+)/", r"Transformer/encoderblock_(\d+)/", r"block(\d+)/unit(\d+)/"
# Flax before Linen counted all modules of a block together; some BiT files count their convolutions.
PRE_LINEN = ((r"/LayerNorm_[23]/", "/LayerNorm_1/"),)
COUNTED = ((r"/standardized_conv2d_\d+/", "/standardized_conv2d/"),)
LAYOUTS = (
    Layout("released", "mixer", "pre_head_layer_norm/scale", mixer_released, MIXER, MIXER),
    Layout(
        "internal", "mixer", "Mixer/encoder_norm/scale", mixer_internal, MIXER, r"Mixer/encoderblock_(\d+)/", spellings=PRE_LINEN
    ),
    Layout("timm", "mixer", "blocks.0.mlp_tokens.fc1.weight", mixer_timm, MIXER, r"blocks\.(\d+)\."),
    Layout("released", "vit", "Transformer/encoder_norm/scale", vit_released, VIT, VIT),
    Layout("timm", "vit", "blocks.0.attn.qkv.weight", vit_timm, VIT, r"blocks\.(\d+)\."),
    Layout("transformers", "vit", "vit.layernorm.weight", vit_transformers, VIT, r"vit\.encoder\.layer\.(\d+)\."),
    Layout("released", "resnet", "resnet/group_norm/gamma", resnet_released, RESNET, f"resnet/{RESNET}", 1, 1, COUNTED),
    Layout("timm", "resnet", "stages.0.blocks.0.conv1.weight", resnet_timm, RESNET, r"stages\.(\d+)\.blocks\.(\d+)\.", 1, 0),
    Layout(
        "transformers", "resnet", "bit.norm.weight", resnet_transformers, RESNET,
        r"bit\.encoder\.stages\.(\d+)\.layers\.(\d+)\.", 1, 0,
    ),
)  # fmt: skip
