"""The Mixers that the authors released, and whether a file is one of them: `python -m mixer_jax weights list | verify FILE`.

Which files there are, and how large: the model listing of google-research/vision_transformer. No digests of them were published.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.checkpoints.weights import Weights, load_weights, preprocessing_of
from mixer_jax.classes import describe, has_names
from mixer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Released:
    """One file, of images of 224 x 224 pixels."""

    name: str
    variant: str
    num_classes: int
    mebibytes: float
    data: str

    @property
    def url(self) -> str:
        return f"https://storage.googleapis.com/mixer_models/{self.name}.npz"


FROM_SCRATCH = "ImageNet-1k, from scratch"
ON_21K = "ImageNet-21k"
RELEASED = (
    Released("imagenet1k/Mixer-B_16", "B/16", 1000, 228.47, FROM_SCRATCH),
    Released("imagenet1k/Mixer-L_16", "L/16", 1000, 794.29, FROM_SCRATCH),
    Released("imagenet21k/Mixer-B_16", "B/16", 21_843, 289.61, ON_21K),
    Released("imagenet21k/Mixer-L_16", "L/16", 21_843, 875.78, ON_21K),
)

# Accuracy, file names and the authors' word (pull request 651 of timm) agree: no 21k model fine-tuned on 1k was ever released.
TRAP_OF_NAMES = (
    "timm's mixer_b16_224.goog_in21k_ft_in1k and mixer_l16_224.goog_in21k_ft_in1k hold the imagenet1k weights, trained from "
    "scratch: nothing of them saw ImageNet-21k. timm's mixer_b16_224.miil_* have the same shapes, but other weights, which want "
    "pixels in [0, 1]."
)


def list_released() -> str:
    """A table of the files, and the trap in timm's names for them."""
    lines = [f"{'name':24} {'classes':>7} {'MiB':>7}  {'trained on':26} URL"]
    lines += [f"{row.name:24} {row.num_classes:7} {row.mebibytes:7.2f}  {row.data:26} {row.url}" for row in RELEASED]
    return "\n".join([*lines, "", TRAP_OF_NAMES])


def verify(path: str, sha256: str = "") -> str:
    """Say what a file or run holds, after checking that it is whole: structure, shapes, types, finite values, digest.

    Raises UserError when it is not, or when its file has not the SHA-256 that is asked for.
    """
    if sha256 and (found := _file_sha256(path)) != sha256.lower():
        raise UserError(f"{path} has SHA-256 {found}, and not {sha256.lower()}: it is another file, or damaged.")
    weights = load_weights(path)
    model = weights.model  # refuses what does not fit
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
    return "\n".join([*lines, *_which(weights)])


def _classes(weights: Weights) -> str:
    """Return the first classes in words, and their number, as far as the weights say."""
    names = weights.class_names
    if not has_names(names):
        return f"{len(names)}, without names"
    return f"{len(names)}: {', '.join(map(describe, names[:5]))}" + (", ..." if len(names) > 5 else "")


def _preprocessing(weights: Weights) -> str:
    """Return how to prepare images, as far as it is known."""
    steps = preprocessing_of(weights)
    if steps.get("value_range") is not None:
        return json.dumps(steps)
    return (
        f"not known. The model takes images of {weights.model.image_size} px; files of the {weights.format} format were trained "
        "with pixels in [-1, 1], in [0, 1], or less ImageNet's mean. See where it comes from (config.json: mean, std)."
    )


def _which(weights: Weights) -> list[str]:
    """The released file that holds such a model, and how the sizes compare."""
    model = weights.model
    if model.family != "mixer":
        return []
    for row in RELEASED:
        if (model.fields, model.num_classes, model.image_size) == ({"variant": row.variant}, row.num_classes, 224):
            said = f"  released as    {row.name}, {row.data}: a file of {row.mebibytes} MiB"
            if weights.format == "released" and Path(weights.path).is_file():
                said += f"; this one has {Path(weights.path).stat().st_size / 2**20:.2f}"
            return [said] + ([f"  note           {TRAP_OF_NAMES}"] if row.data == FROM_SCRATCH else [])
    return ["  released as    none of the four"]


def _file_sha256(path: str) -> str:
    if not Path(path).is_file():
        raise UserError(f"{path} is no file on this machine: a digest of the file needs one.")
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
