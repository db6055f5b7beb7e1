"""Checkpoint formats: the names and axis orders that other projects use for the parameters of our models.

Each format converts to our parameter tree and back without changing a bit. In this file, `ours` is a path in our tree and
`theirs` is a name in a file of the format. Our tree is that of the released .npz files (for BiT, without the leading "resnet/").
Each of the other formats is a table whose rows say which of our arrays make up which array of the file, and how to transpose
them.

    released       .npz files of vision_transformer and big_transfer
    internal       older Mixer files of the paper's authors: Mixer/encoderblock_0/token_mixing_phase_0/kernel1, ...
    timm           PyTorch names of timm, as on the Hugging Face hub: blocks.0.mlp_tokens.fc1.weight, ...
    transformers   names of Hugging Face's transformers, for ViT and BiT: vit.encoder.layer.0.layernorm_before.weight, ...
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np

from mixer_jax.errors import UserError
from mixer_jax.models.vit import default_num_heads

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a format's table: the arrays of `ours` make up the array `theirs`.

    `join(*arrays of ours)` returns the array of the file, and `split(array of the file)` returns our arrays.
    """

    ours: tuple[str, ...]
    theirs: str
    join: Callable[..., np.ndarray]
    split: Callable[[np.ndarray], tuple[np.ndarray, ...]]


@dataclasses.dataclass(frozen=True)
class CheckpointFormat:
    """The names of one model family's parameters in one kind of file.

    Attributes:
      name: the format's name, as users type it.
      family: the model family.
      sign: a name that every file of this format has, and that no other format has.
      rows: returns the table for a model with the given blocks, which are counted from 0. None if the file has our names.
      their_block: a pattern that finds the numbers of a block in the file's names, which are counted from 0.
      prefix: what the file puts in front of our names, if `rows` is None.
      spellings: a pattern and its replacement, which turn other known spellings of a name into the usual one.
    """

    name: str
    family: str
    sign: str
    rows: Callable[[list[tuple[int, ...]]], Iterable[Row]] | None = None
    their_block: str = ""
    prefix: str = ""
    spellings: tuple[str, str] = ("", "")

    def to_ours(self, arrays: Arrays) -> Arrays:
        """Return a file's arrays under our names.

        Raises UserError for an array that is not part of the format, and for one whose shape cannot be converted.
        """
        usual = {re.sub(*self.spellings, name): array for name, array in arrays.items()}
        rows, unknown = self._rows_by_name(arrays), self.unknown(arrays)
        if unknown or len(usual) < len(arrays):
            unexpected = ", ".join(unknown) or "two spellings of one"
            raise UserError(f"These arrays have no place in a {self.family} of the {self.name} format: {unexpected}.")
        ours = {}
        for theirs, array in usual.items():
            try:
                ours |= zip(rows[theirs].ours, map(np.ascontiguousarray, rows[theirs].split(array)), strict=True)
            except ValueError as error:
                raise UserError(f"{theirs} has shape {array.shape}, which cannot be: {error}.") from error
        return ours

    def unknown(self, names: Collection[str]) -> list[str]:
        """Return the names that are not part of the format, sorted and in their usual spelling."""
        return sorted({re.sub(*self.spellings, name) for name in names} - self._rows_by_name(names).keys())

    def _rows_by_name(self, names: Collection[str]) -> dict[str, Row]:
        """Return {name in the file: its row} for the model that a file with these names holds."""
        usual = {re.sub(*self.spellings, name) for name in names}
        if self.rows is None:
            return {name: same(name.removeprefix(self.prefix), name) for name in usual if name.startswith(self.prefix)}
        return {row.theirs: row for row in self.rows(_blocks(self.their_block, 0, usual))}

    def to_theirs(self, arrays: Arrays) -> Arrays:
        """Return our arrays under the names of the file. This is the inverse of `to_ours`."""
        if self.rows is None:
            return {self.prefix + name: x for name, x in arrays.items()}
        rows = [row for row in self.rows(_blocks(*OUR_BLOCKS[self.family], arrays)) if row.ours[0] in arrays]
        return {row.theirs: np.ascontiguousarray(row.join(*(arrays[name] for name in row.ours))) for row in rows}


OUR_BLOCKS = {  # For each family: the pattern that finds a block's numbers in our names, and the number of the first block.
    "mixer": (r"MixerBlock_(\d+)/", 0),
    "vit": (r"Transformer/encoderblock_(\d+)/", 0),
    "resnet": (r"block(\d+)/unit(\d+)/", 1),
}


def _blocks(pattern: str, first: int, names: Iterable[str]) -> list[tuple[int, ...]]:
    """Return the number of each block, (i,) or (stage, unit), counted from 0 and sorted. In the names, `first` is the first."""
    blocks = {tuple(int(number) - first for number in match.groups()) for name in names if (match := re.match(pattern, name))}
    return sorted(blocks)


def find_format(names: Iterable[str]) -> CheckpointFormat | None:
    """Return the format of a file that has these names, or None if the file is in no known format."""
    names = set(names)
    return next((format for format in FORMATS if format.sign in names), None)


def get_format(name: str, family: str) -> CheckpointFormat:
    """Return the format with this name. Raises UserError if the family has no such format."""
    for format in FORMATS:
        if (format.name, format.family) == (name, family):
            return format
    known = [format.name for format in FORMATS if format.family == family]
    raise UserError(f"There is no format {name!r} for a {family}: choose one of {', '.join(known)}.")


# Rows: how an array of a file is converted to ours and back. Our kernels have their axes in Flax's order.


def same(ours: str, theirs: str) -> Row:
    """Return the row of an array that both store alike."""
    return Row((ours,), theirs, lambda x: x, lambda x: (x,))


def dense(ours: str, theirs: str) -> Iterator[Row]:
    """Yield the rows of a dense layer. Its kernel is [in, out] in our tree and [out, in] in PyTorch."""
    yield Row((f"{ours}/kernel",), f"{theirs}.weight", lambda x: x.transpose(1, 0), lambda x: (x.transpose(1, 0),))
    yield same(f"{ours}/bias", f"{theirs}.bias")


def conv(ours: str, theirs: str, *, bias: bool = True) -> Iterator[Row]:
    """Yield the rows of a convolution: a kernel [height, width, in, out] in our tree, [out, in, height, width] in PyTorch."""
    yield Row((f"{ours}/kernel",), f"{theirs}.weight", lambda x: x.transpose(3, 2, 0, 1), lambda x: (x.transpose(2, 3, 1, 0),))
    if bias:
        yield same(f"{ours}/bias", f"{theirs}.bias")


def norm(ours: str, theirs: str, scale: str = "scale", bias: str = "bias") -> Iterator[Row]:
    """Yield the rows of a normalization, whose arrays are called `scale` and `bias` in our tree."""
    yield same(f"{ours}/{scale}", f"{theirs}.weight")
    yield same(f"{ours}/{bias}", f"{theirs}.bias")


def squeezed(ours: str, theirs: str) -> Row:
    """Return the row of an array that some files store with extra axes of length 1. It is written without them."""
    return Row((ours,), theirs, lambda x: x, lambda x: (x.squeeze(),))


# The tables. Each takes the model's blocks, counted from 0, and yields the rows of all its arrays.


PAIR, NORM = ("kernel", "bias"), ("scale", "bias")


def mixer_internal(blocks: list) -> Iterator[Row]:
    """Yield the rows of a Mixer in the "internal" format."""
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
    """Yield the rows of a Mixer in timm's format."""
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


def vit_timm(blocks: list) -> Iterator[Row]:
    """Yield the rows of a ViT in timm's format."""
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
    """Yield the rows of an attention layer in timm's format.

    timm stores one matrix [3 x heads x head_dim, in], which holds the query, the key and the value one after another. We store a
    kernel [in, heads, head_dim] for each of them. The file does not state the number of heads. It is assumed to be the number
    that the ViT papers use for this width (`default_num_heads` in models/vit.py).
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
        lambda bias: tuple(part.reshape(default_num_heads(part.size), -1) for part in np.split(bias, 3)),
    )
    yield from attention_out(f"{ours}/out", f"{theirs}.proj")


def attention_out(ours: str, theirs: str) -> Iterator[Row]:
    """Yield the rows of attention's output projection: [heads, head_dim, out] in our tree, [out, heads x head_dim] in PyTorch."""
    yield Row(
        (f"{ours}/kernel",),
        f"{theirs}.weight",
        lambda kernel: kernel.reshape(-1, kernel.shape[2]).T,
        lambda weight: (weight.T.reshape(default_num_heads(weight.shape[1]), -1, weight.shape[0]),),
    )
    yield same(f"{ours}/bias", f"{theirs}.bias")


def heads_joined(kernel: np.ndarray) -> np.ndarray:
    """Return a kernel [in, heads, head_dim] as a PyTorch weight [heads x head_dim, in]."""
    return kernel.reshape(kernel.shape[0], -1).T


def heads_split(weight: np.ndarray) -> np.ndarray:
    """Return a square PyTorch weight [heads x head_dim, in] as a kernel [in, heads, head_dim]: the inverse of `heads_joined`."""
    width = weight.shape[1]
    return weight.T.reshape(width, default_num_heads(width), -1)


def vit_transformers(blocks: list) -> Iterator[Row]:
    """Yield the rows of a ViT in the format of transformers."""
    yield same("cls", "vit.embeddings.cls_token")
    yield same("Transformer/posembed_input/pos_embedding", "vit.embeddings.position_embeddings")
    yield from conv("embedding", "vit.embeddings.patch_embeddings.projection")
    for (i,) in blocks:
        ours, theirs = f"Transformer/encoderblock_{i}", f"vit.encoder.layer.{i}"
        yield from norm(f"{ours}/LayerNorm_0", f"{theirs}.layernorm_before")
        yield from norm(f"{ours}/LayerNorm_2", f"{theirs}.layernorm_after")
        mixing = f"{ours}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            prefix = f"{theirs}.attention.attention.{part}"
            kernel = (f"{mixing}/{part}/kernel",)
            yield Row(kernel, f"{prefix}.weight", heads_joined, lambda weight: (heads_split(weight),))
            bias = (f"{mixing}/{part}/bias",)
            yield Row(bias, f"{prefix}.bias", np.ravel, lambda bias: (bias.reshape(default_num_heads(bias.size), -1),))
        yield from attention_out(f"{mixing}/out", f"{theirs}.attention.output.dense")
        yield from dense(f"{ours}/MlpBlock_3/Dense_0", f"{theirs}.intermediate.dense")
        yield from dense(f"{ours}/MlpBlock_3/Dense_1", f"{theirs}.output.dense")
    yield from norm("Transformer/encoder_norm", "vit.layernorm")
    yield from dense("pre_logits", "vit.pooler.dense")
    yield from dense("head", "classifier")


def resnet_timm(blocks: list) -> Iterator[Row]:
    """Yield the rows of a BiT ResNet in timm's format."""
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
    """Yield the rows of a BiT ResNet in the format of transformers.

    They are timm's rows under other names, except for the head, which is a dense layer here and a 1 x 1 convolution in timm.
    """
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


# Before Linen, Flax numbered all modules of a block together: the second layer norm was LayerNorm_2 or LayerNorm_3.
PRE_LINEN = (r"/LayerNorm_[23]/", "/LayerNorm_1/")
# Some BiT files number their convolutions.
COUNTED = (r"/standardized_conv2d_\d+/", "/standardized_conv2d/")
# The patterns that find blocks, in timm's names and in transformers' names.
BLOCK, UNIT = r"blocks\.(\d+)\.", r"stages\.(\d+)\.blocks\.(\d+)\."
LAYER, HF_UNIT = r"vit\.encoder\.layer\.(\d+)\.", r"bit\.encoder\.stages\.(\d+)\.layers\.(\d+)\."
FORMATS = (
    CheckpointFormat("released", "mixer", "pre_head_layer_norm/scale"),
    CheckpointFormat(
        "internal", "mixer", "Mixer/encoder_norm/scale", mixer_internal, r"Mixer/encoderblock_(\d+)/", spellings=PRE_LINEN
    ),
    CheckpointFormat("timm", "mixer", "blocks.0.mlp_tokens.fc1.weight", mixer_timm, BLOCK),
    CheckpointFormat("released", "vit", "Transformer/encoder_norm/scale"),
    CheckpointFormat("timm", "vit", "blocks.0.attn.qkv.weight", vit_timm, BLOCK),
    CheckpointFormat("transformers", "vit", "vit.layernorm.weight", vit_transformers, LAYER),
    CheckpointFormat("released", "resnet", "resnet/group_norm/gamma", prefix="resnet/", spellings=COUNTED),
    CheckpointFormat("timm", "resnet", "stages.0.blocks.0.conv1.weight", resnet_timm, UNIT),
    CheckpointFormat("transformers", "resnet", "bit.norm.weight", resnet_transformers, HF_UNIT),
)
