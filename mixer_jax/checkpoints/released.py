"""List the Mixers that the paper's authors released, and verify files.

The commands are `python -m mixer_jax weights list` and `python -m mixer_jax weights verify FILE`.
The names and sizes of the files come from the model listing of google-research/vision_transformer. The authors published no
digests of the files.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.weights import ANY_RANGE, Weights, load_weights, preprocessing_of
from mixer_jax.classes import describe, has_names
from mixer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Released:
    """A released file, whose model takes images of 224 x 224 pixels."""

    name: str
    variant: str
    num_classes: int
    mebibytes: float
    data: str

    @property
    def url(self) -> str:
        """The URL of the file."""
        return f"https://storage.googleapis.com/mixer_models/{self.name}.npz"


FROM_SCRATCH = "ImageNet-1k, from scratch"
ON_21K = "ImageNet-21k"
RELEASED = (
    Released("imagenet1k/Mixer-B_16", "B/16", 1000, 228.47, FROM_SCRATCH),
    Released("imagenet1k/Mixer-L_16", "L/16", 1000, 794.29, FROM_SCRATCH),
    Released("imagenet21k/Mixer-B_16", "B/16", 21_843, 289.61, ON_21K),
    Released("imagenet21k/Mixer-L_16", "L/16", 21_843, 875.78, ON_21K),
)

# The accuracies, the file names and a statement of the authors (pull request 651 of timm) agree: no Mixer that was pre-trained on
# ImageNet-21k and fine-tuned on ImageNet-1k was ever released.
TRAP_OF_NAMES = (
    "timm's mixer_b16_224.goog_in21k_ft_in1k and mixer_l16_224.goog_in21k_ft_in1k hold the imagenet1k weights, trained from "
    "scratch: nothing of them saw ImageNet-21k. timm's mixer_b16_224.miil_* have the same shapes, but other weights, which want "
    "pixels in [0, 1]."
)


def list_released() -> str:
    """Return the table of the released files, with a warning about misleading names of the same weights in timm."""
    lines = [f"{'name':24} {'classes':>7} {'MiB':>7}  {'trained on':26} URL"]
    lines += [f"{row.name:24} {row.num_classes:7} {row.mebibytes:7.2f}  {row.data:26} {row.url}" for row in RELEASED]
    return "\n".join([*lines, "", TRAP_OF_NAMES])


def verify(path: str, sha256: str = "") -> str:
    """Check the weights in a file or a run, and return a description of them.

    The check covers the structure, shapes, dtypes, finite values and, if the metadata states it, the digest of the parameters.
    Raises UserError if a check fails, or if `sha256` is given and the file has another SHA-256.
    """
    if sha256 and (found := _file_sha256(path)) != sha256.lower():
        raise UserError(f"{path} has SHA-256 {found}, and not {sha256.lower()}: it is another file, or damaged.")
    weights = load_weights(path)
    model = weights.model  # This raises UserError if the weights are not those of a complete model.
    parameters = sum(x.size for x in weights.arrays.values())
    lines = [
        f"{path}: {model}",
        f"  format         {weights.format}; {len(weights.arrays)} arrays, {parameters:,} parameters",
        f"  classes        {_classes(weights)}",
        f"  preprocessing  {_preprocessing(weights)}",
        f"  params SHA-256 {params_sha256(weights.arrays)}"
        + (", as its metadata says" if "params_sha256" in weights.metadata else ""),
    ]
    if Path(path).is_file():
        lines.append(f"  file SHA-256   {_file_sha256(path)}" + (", as asked for" if sha256 else ""))
    return "\n".join([*lines, *_released_as(weights)])


def _classes(weights: Weights) -> str:
    """Return the number of classes, and the names of the first ones if the weights name their classes."""
    names = weights.class_names
    if not has_names(names):
        return f"{len(names)}, without names"
    return f"{len(names)}: {', '.join(map(describe, names[:5]))}" + (", ..." if len(names) > 5 else "")


def _preprocessing(weights: Weights) -> str:
    """Return how to prepare images for the model, or what is known about it."""
    steps = preprocessing_of(weights)
    if steps.get("value_range") is not None:
        return json.dumps(steps)
    return (
        f"not known. The model takes images of {weights.model.image_size} px; models of {' and '.join(ANY_RANGE)} were trained "
        "with pixels in [-1, 1], in [0, 1], or less ImageNet's mean. See where it comes from (config.json: mean, std)."
    )


def _released_as(weights: Weights) -> list[str]:
    """Return lines that name the released file with a model of the same shape, and compare the sizes of the files."""
    model = weights.model
    if model.family != "mixer":
        return []
    for row in RELEASED:
        if (model.fields, model.num_classes, model.image_size) == ({"variant": row.variant}, row.num_classes, 224):
            line = f"  released as    {row.name}, {row.data}: a file of {row.mebibytes} MiB"
            if weights.format == "released" and Path(weights.path).is_file():
                line += f"; this one has {Path(weights.path).stat().st_size / 2**20:.2f}"
            return [line] + ([f"  note           {TRAP_OF_NAMES}"] if row.data == FROM_SCRATCH else [])
    return ["  released as    none of the four"]


def _file_sha256(path: str) -> str:
    """Return the SHA-256 of a file's bytes. Raises UserError if `path` is not a file on this machine."""
    if not Path(path).is_file():
        raise UserError(f"{path} is no file on this machine: a digest of the file needs one.")
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
