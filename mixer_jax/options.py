"""The table of all options of a run.

Each row of the table is an `Option`, with its default, unit, meaning and bounds. The default config, the checks in validation.py
and docs/configuration.md are made from these rows. No other file gives an option a default.
"""

import dataclasses
import functools
import re
import sys
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

# {old name of an option: its current name}, in every part of a config. Flags, config files and the config.json of old runs may
# use either name.
RENAMED = {"max_bad_share": "max_unreadable_share"}


@functools.cache
def current_name(name: str) -> str:
    """Return the current name of an option. For an old name, print a line with the current name, once in a process."""
    if name in RENAMED:
        print(f"The option {name} is now called {RENAMED[name]}.", file=sys.stderr)
    return RENAMED.get(name, name)


class Section(ConfigDict):
    """A ConfigDict whose options can also be read and set by their old names."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(current_name(key))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(current_name(key), value)

    def get_type(self, key: str) -> type:
        """Return the type of an option."""
        return super().get_type(current_name(key))


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a config: a row of the table.

    Attributes:
      name: the path of the option, such as "optimizer.b1".
      default: the default. Its type is the type of the option. None means that a config must set the option.
      doc: the meaning of the option, for docs/configuration.md.
      unit: the unit of its values, or LENGTH.
      allowed: the values that it may have: an interval such as "in [0, 1)" or "in [1, 2^20]". If the option is a tuple,
        "different numbers" or "pairs of a pattern and a factor" stands before the interval. `validation.allows` reads it.
      choices: the values that it may have, if it is one of a few strings.
      only: (path of another option, value, ...). This option has an effect only if the other one has one of these values.
        ABOVE_0 stands for all positive numbers.
      before: the value that describes what runs did before this option existed. None means that old runs get no value.
      resumable: whether a run may be resumed with another value. This is so if the option changes neither the parameters nor
        their meaning.
      resumable_with: (path of another option, value, ...). A run may be resumed with another value of this option if the other
        option has one of these values in both configs.
    """

    name: str
    default: Any
    doc: str
    unit: str = ""
    allowed: str = ""
    choices: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    before: Any = None
    resumable: bool = False
    resumable_with: tuple[str, ...] = ()


def duration(*, steps: int = 0, epochs: float = 0.0, examples: int = 0) -> ConfigDict:
    """Return a length of training in one of three units. Units that are 0 do not count. `steps_of` turns it into steps."""
    return Section({"steps": steps, "epochs": float(epochs), "examples": examples})


LENGTH = "steps, epochs or examples"  # This is the unit of an option that is a `duration`.
ABOVE_0 = "above 0"
FLOATS = ("float32", "bfloat16")
TOKENS = ("model.family", "mixer", "vit")  # These families cut an image into tokens.
# The ways in which an evaluator can resize images. "small" is crop (ii) and "square" is crop (i) of the paper, supplement C.
RESIZES = ("small", "square", "whole")
RESIZE_DOC = "Resize the shorter side (`small`) or both (`square`) to resize_size, or both to image_size, uncropped (`whole`)."
BEST_ON_TEST = "best_on_test"  # A value of l2_choice, and the end of the names of the figures that it gives.
RANDAUGMENT = ("augment.randaugment_layers", ABOVE_0)
ADAM = ("optimizer.name", "adam")
PERMUTATIONS = ("none", "patches_and_pixels", "all_pixels")
# In pixels: the patches that "patches_and_pixels" permutes for a model without patches. The paper's ResNet has them too.
RESNET_PATCH_SIZE = 16

# fmt: off
DATASET = (
    Option("source", "", "`digits`, `glyphs`, `folder:DIR`, `tfds:NAME[/CONFIG][:VERSION]`, `vtab:TASK` or `records:DIR`; "
           "this DIR may be gs://BUCKET/PATH."),
    Option("split", "train", "Name of the split. tfds and records also take slices of a split, such as `train[:99%]`."),
    Option("data_dir", "", "For tfds and vtab: the directory of the prepared data; it may be gs://BUCKET/PATH. Empty: the "
           "default of TFDS."),
    Option("max_labels", 1, "For tfds: the largest number of classes that one record has.", allowed="in [1, 2^16)"),
    Option("verify", "full", "For records: hash new or changed shards in `full`, or the first and last 64 KiB of all (`ends`).",
           choices=("full", "ends"), resumable=True),
    Option("local_copy", "", "For data in a bucket: the directory for a copy on each host. Empty: the cache folder, or "
           "/dev/shm, where there is room. `none`, for records: no copy; each record is read from the bucket when it is needed.",
           resumable=True),
    Option("num_examples", 0, "For glyphs: the number of images in the split.", allowed="in [0, 2^32)"),
    Option("examples_per_class", 0, "Number of examples of each class that are used. 0: all examples.", allowed="in [0, 2^32)"),
    Option("subset_seed", 0, "Seed of the choice of these examples.", allowed="in [0, 2^32)"),
    Option("weight", 1.0, "In a mixture: this weight over the sum of all weights is the share of the images.",
           allowed="in (0, 10^9]"),
    Option("parts", Section(), "Datasets of a mixture by name, as `mixture(...)` makes them. The source is then empty."),
)
# Options that say where a dataset lies and how it is read. All of its splits have them in common.
SHARED_BY_SPLITS = ("source", "data_dir", "max_labels", "verify", "local_copy")
EVALUATOR = (
    Option("every", duration(), "How often to evaluate during training. All units 0: only at the end of training.", LENGTH),
    Option("batch_size", 0, "Images in a batch, over all devices. 0: as in training.", "images", allowed="in [0, 2^20]"),
    Option("resize_size", 0, "Length of the resized sides, before a central crop to image_size. 0: image_size x 256/224, "
           "rounded.", "pixels", allowed="in [0, 2^14]", only=("resize", "small", "square")),
)
EVALUATORS = {
    "classification": (
        Option("kind", "classification", "Top-1, top-5 and loss over every example of a split."),
        Option("data", None, "The examples: `dataset(...)`."),
        Option("resize", "small", RESIZE_DOC, choices=RESIZES),
        Option("max_predictions", 100_000, "Largest number of examples whose predictions are written, to "
               "WORKDIR/predictions/NAME.parquet. For more, none is. 0: never.", "examples", allowed="in [0, 10^7]"),
        *EVALUATOR,
    ),
    "fewshot": (
        Option("kind", "fewshot", "Accuracy of a linear classifier on frozen features."),
        Option("train", None, "The labeled examples: `dataset(...)`."),
        Option("test", None, "The examples to classify: `dataset(...)`."),
        Option("resize", "square", RESIZE_DOC, choices=RESIZES),
        Option("shots", (1, 5, 10, 25), "Numbers of labeled images per class. A class with fewer is refused before the first "
               "step.", allowed="different numbers in [1, 2^20]"),
        Option("seeds", (0, 1, 2), "Each seed chooses its own labeled images. The mean over the seeds and each figure are "
               "written.", allowed="different numbers in [0, 2^32)"),
        Option("l2_choice", "fixed", "Whether l2 is `fixed`, or that one of 2^-10, 2^-9, ..., 2^19 that has the best accuracy on "
               "`test` itself (`best_on_test`, as in the authors' code of 2021).", choices=("fixed", BEST_ON_TEST),
               before="fixed"),
        Option("l2", 2.0**10, "Weight of the squared norm in the ridge regression.", allowed="in (0, 10^12]",
               only=("l2_choice", "fixed")),
        *EVALUATOR,
    ),
}
MODEL = (
    Option("model.family", "mixer", "Architecture. A family refuses options that it does not have.",
           choices=("mixer", "vit", "resnet")),
    Option("model.variant", "B/16", "For mixer and vit: SIZE/PATCH, with any patch size in pixels. For resnet: such as R50x1."),
    Option("model.hidden_dim", 0, "C, the width of a token. For resnet: of the root at width factor 1. 0: that of the variant.",
           allowed="in [0, 2^17]"),
    Option("model.num_blocks", 0, "Number of blocks. 0: that of the variant.", allowed="in [0, 2^12]", only=TOKENS),
    Option("model.channels_mlp_dim", 0, "D_C, the width of the channel-mixing MLP. 0: that of the variant.",
           allowed="in [0, 2^20]", only=TOKENS),
    Option("model.tokens_mlp_dim", 0, "D_S, the width of the token-mixing MLP. 0: that of the variant.", allowed="in [0, 2^20]",
           only=("model.family", "mixer")),
    Option("model.num_heads", 0, "Number of attention heads. 0: that of the variant.", allowed="in [0, 2^12]",
           only=("model.family", "vit")),
    Option("model.tile_size", 0, "For mixer: if image_size is K times this, D_S is K^2 times as large (supplement C). 0: never.",
           "pixels", allowed="in [0, 2^13]"),
    Option("model.pooling", "token", "What the head reads: a class token (`token`) or the mean over the patches (`mean`).",
           choices=("token", "mean"), only=("model.family", "vit")),
    Option("model.pre_logits_dim", 0, "Width of a dense layer with tanh before the head. 0: no such layer.",
           allowed="in [0, 2^17]", only=("model.family", "vit")),
    Option("model.dropout", 0.0, "Probability after both dense layers of each MLP; for vit also after positions and attention.",
           allowed="in [0, 1)", only=TOKENS),
    Option("model.stoch_depth", 0.0, "Probability that a branch of the last block is dropped. It rises linearly from 0 in the "
           "first.", allowed="in [0, 1)", only=TOKENS),
    Option("model.stoch_depth_rescale", False, "Whether branches that are kept are divided by 1 minus this probability.",
           only=TOKENS),
    Option("model.dtype", "float32", "Type of activations and matrix products. Parameters are always float32.", choices=FLOATS),
    Option("model.remat", False, "Whether the backward pass recomputes each block: less memory, about a third more operations."),
    Option("model.head_bias_init", 0.0, "First value of the head's biases. With -log(num_classes), a sigmoid loss starts low.",
           allowed="in [-100, 100]"),
    Option("model.permutation", "none", "Fixed order of the pixels that the model sees (section 3.4): patches, and the pixels in "
           "each patch alike, or all pixels of the image change places. For resnet, patches are 16 x 16.",
           choices=PERMUTATIONS, before="none"),
)
OPTIONS = (
    Option("seed", 0, "Seed of all randomness: parameters, order of the data, crops, mixup, dropout.", allowed="in [0, 2^32)"),
    Option("total", duration(), "Length of the run. Exactly one unit must be set. A run with schedule.decay=constant can be made "
           "longer.", LENGTH, resumable_with=("schedule.decay", "constant")),
    Option("batch_size", 4096, "Images in a step, over all devices.", "images", allowed="in [1, 2^20]"),
    Option("accumulation_steps", 1, "Parts of a batch that are computed one after the other, to save memory. They make one "
           "update.", allowed="in [1, 2^20]"),
    Option("image_size", 224, "Height and width of the images that the model sees.", "pixels", allowed="in [1, 2^13]"),
    Option("num_classes", 1000, "K, the number of classes. It must be that of the training data.", allowed="in [1, 2^24]"),
    Option("init_from", "", "A run's directory, its checkpoints/STEP, a file of weights, released:NAME, hf://OWNER/NAME. Empty: "
           "none."),
    Option("init_head", "new", "With init_from: a `new` head of zeros, the old one (`restore`), or a `subset` of its classes.",
           choices=("new", "restore", "subset")),
    Option("init_classes", "", "With init_head=subset: a file with the number of a class of the old head on each line. Empty: "
           "classes are found by their names."),
    *MODEL,
    *(dataclasses.replace(option, name=f"data.{option.name}") for option in DATASET),
    Option("loader.workers", 16, "Number of workers that decode images on each host.", allowed="in [1, 2^10]", resumable=True),
    Option("loader.processes", True, "Whether each worker is a process. False: a thread, which is enough for small data.",
           resumable=True),
    Option("loader.prefetch", 256, "Number of decoded examples that each host keeps ready.", "examples", allowed="in [1, 2^20]",
           resumable=True),
    Option("loader.max_pixels", 2**26, "Most pixels of an image. One with more is unreadable. A worker needs 3 bytes for a "
           "pixel.", "pixels", allowed="in [1, 2^30]"),
    Option("loader.max_unreadable_share", 0.01, "Share of the training images that may be unreadable. With more, the run stops.",
           allowed="in [0, 1)", resumable=True),
    Option("augment.crop", "inception", "Crop of random area and aspect (`inception`), `random` square of the resized image, or "
           "none (`resize`).", choices=("inception", "random", "resize")),
    Option("augment.crop_min_area", 0.05, "For inception: the smallest share of the image's area that a crop keeps.",
           allowed="in (0, 1]", only=("augment.crop", "inception")),
    Option("augment.crop_min_aspect", 0.75, "For inception: the smallest width / height of a crop.", allowed="in (0, 1000]",
           only=("augment.crop", "inception")),
    Option("augment.crop_max_aspect", 1.33, "For inception: the largest width / height of a crop.", allowed="in (0, 1000]",
           only=("augment.crop", "inception")),
    Option("augment.resize", "square", "For random: resize both sides (`square`, as BiT does) or the shorter one (`small`).",
           choices=("square", "small"), only=("augment.crop", "random")),
    Option("augment.resize_size", 0, "For random: length of the resized sides. 0: image_size x 256/224, rounded.", "pixels",
           allowed="in [0, 2^14]", only=("augment.crop", "random")),
    Option("augment.flip", True, "Whether images are flipped left to right, each with probability 1/2."),
    Option("augment.randaugment_layers", 0, "Number of RandAugment's operations per image. 0: none.", allowed="in [0, 100]"),
    Option("augment.randaugment_magnitude", 0, "Strength of the operations: m in Table 4 of the paper.", allowed="in [0, 30]",
           only=RANDAUGMENT),
    Option("augment.randaugment_solarize", "wrapped", "Threshold of Solarize, 256 m / 10: `wrapped` around in uint8, as in the "
           "authors' code (m = 10 and 20 invert all), or `clipped`, as in timm (no effect if m is 10 or more).",
           choices=("wrapped", "clipped"), only=RANDAUGMENT, before="clipped"),
    Option("augment.randaugment_lengths", "shares", "Lengths of translation and Cutout: `shares` of the image's side (100/224 "
           "and 40/224 at m = 10), or as many `pixels` at any image size, as in the authors' code.", choices=("shares", "pixels"),
           only=RANDAUGMENT, before="pixels"),
    Option("augment.mixup", 0.0, "p of the distribution Beta(p, p) from which mixup draws. 0: no mixup.", allowed="in [0, 100]"),
    Option("loss.kind", "sigmoid", "Cross-entropy of the sigmoid, summed over classes, or of the softmax.",
           choices=("sigmoid", "softmax")),
    Option("loss.label_smoothing", 0.0, "Share of a target that is spread over all classes.", allowed="in [0, 1)",
           only=("loss.kind", "softmax")),
    Option("optimizer.name", "adam", "Update rule. sgd has momentum.", choices=("adam", "sgd")),
    Option("optimizer.b1", 0.9, "For adam: decay of the first moment in a step.", allowed="in [0, 1)", only=ADAM),
    Option("optimizer.b2", 0.999, "For adam: decay of the second moment in a step.", allowed="in [0, 1)", only=ADAM),
    Option("optimizer.eps", 1e-8, "For adam: number that is added to the root of the second moment.", allowed="in (0, 1]",
           only=ADAM),
    Option("optimizer.momentum", 0.9, "For sgd: decay of the momentum in a step.", allowed="in [0, 1)",
           only=("optimizer.name", "sgd")),
    Option("optimizer.momentum_dtype", "float32", "Type in which adam's first moment, or the momentum of sgd, is stored.",
           choices=FLOATS),
    Option("optimizer.learning_rate", 1e-3, "Learning rate at the end of the warm-up, where it is highest.",
           allowed="in [0, 1000]"),
    Option("optimizer.weight_decay", 0.0, "Decoupled weight decay: a step subtracts learning_rate x weight_decay x parameter.",
           allowed="in [0, 1000]"),
    Option("optimizer.weight_decay_pattern", ".*/kernel", "Regular expression for the whole paths of the parameters that decay.",
           only=("optimizer.weight_decay", ABOVE_0)),
    Option("optimizer.clip_norm", 1.0, "Largest norm of all gradients together. Larger gradients are scaled down to it. 0: no "
           "clipping.", allowed="in [0, 10^9]"),
    Option("optimizer.multipliers", (), "`((pattern, factor), ...)`: the first pattern that matches a parameter's path scales "
           "its learning rate. Factor 0 freezes it.", allowed="pairs of a pattern and a factor in [0, 10^6]"),
    Option("schedule.decay", "linear", "Curve of the learning rate after the warm-up.",
           choices=("linear", "cosine", "steps", "constant")),
    Option("schedule.step_shares", (), "Shares of the run after each of which the learning rate falls to a tenth, such as "
           "`(0.3, 0.6, 0.9)`.", allowed="increasing numbers in (0, 1)", only=("schedule.decay", "steps")),
    Option("schedule.warmup", duration(), "Length of the warm-up, in which the learning rate rises linearly from 0.", LENGTH),
    Option("schedule.end_learning_rate", 0.0, "Learning rate after the last step. It is not a share of the peak.",
           allowed="in [0, 1000]", only=("schedule.decay", "linear", "cosine")),
    Option("ema_decay", 0.0, "Decay of the averaged parameters in a step. Evaluators use the average. 0: no average.",
           allowed="in [0, 1)"),
    Option("parallel.fsdp", 1, "Number of devices that share one copy of the kernels during a step. Between steps, all do.",
           allowed="in [1, 2^20]", resumable=True),
    Option("evals", Section(), "Evaluators by name: `classification(...)` or `fewshot(...)`.", resumable=True),
    Option("checkpoint.every", duration(steps=1000), "How often to save the state. It is always saved at the end of the run.",
           LENGTH, resumable=True),
    Option("checkpoint.keep", 3, "Number of latest checkpoints to keep. With at least 2, a damaged one has a predecessor.",
           allowed="in [2, 2^20]", resumable=True),
    Option("checkpoint.best", "", "Figure whose best checkpoint is kept too, such as `evals.dev.top1`. The state is saved before "
           "each of its evaluations. Lower is better for a loss, higher for all others. Empty: none.", resumable=True),
    Option("profile", "", "Steps to profile, as FIRST:LAST. Their trace is written to WORKDIR/profile, for TensorBoard and "
           "xprof.", resumable=True),
    Option("tracker", "none", "Service that gets the metrics too: Weights & Biases (`wandb`), MLflow (`mlflow`) or `none`.",
           choices=("none", "wandb", "mlflow"), resumable=True),
    Option("compilation_cache", "", "Directory, or gs://BUCKET/PATH, that keeps compiled programs for other machines of the "
           "same kind. Empty: the user's cache folder.", before="", resumable=True),
    Option("watchdog.step_seconds", 600.0, "Seconds without a step after which the watchdog ends the run, so that it can be "
           "started again. 0: never.", "seconds", allowed="in [0, 10^9]", resumable=True),
    Option("watchdog.step_medians", 20.0, "But it waits at least this many times the median time of a step.",
           allowed="in [0, 10^6]", resumable=True),
    Option("watchdog.compile_seconds", 3600.0, "The longest time for compiling, and for each of the first steps. 0: no bound.",
           "seconds", allowed="in [0, 10^9]", resumable=True),
    Option("watchdog.restore_seconds", 7200.0, "The longest time for restoring or downloading the state. 0: no bound.", "seconds",
           allowed="in [0, 10^9]", resumable=True),
    Option("watchdog.data_seconds", 1800.0, "The longest wait for the data of a step. 0: no bound.", "seconds",
           allowed="in [0, 10^9]", resumable=True),
    Option("watchdog.save_seconds", 3600.0, "The longest wait for a checkpoint to be saved. 0: no bound.", "seconds",
           allowed="in [0, 10^9]", resumable=True),
    Option("watchdog.evaluation_seconds", 3600.0, "The longest time in an evaluation without another batch. 0: no bound.",
           "seconds", allowed="in [0, 10^9]", resumable=True),
    Option("log_every_steps", 50, "How often to write metrics.jsonl, TensorBoard and the progress line.", "steps",
           allowed="in [1, 2^31)", resumable=True),
)
# fmt: on
DATA_FIELDS = {kind: tuple(row.name for row in rows if row.default is None) for kind, rows in EVALUATORS.items()}


def few_shot_figure(shots: int, l2_choice: str) -> str:
    """Return the name of a few-shot evaluator's mean accuracy. Its other figures have names that begin alike."""
    return f"top1_{shots}shot" + (f"_{BEST_ON_TEST}" if l2_choice == BEST_ON_TEST else "")


def family_options(family: str) -> tuple[str, ...]:
    """Return the names of those options in `config.model` that have an effect for a family of models."""
    return tuple(row.name.removeprefix("model.") for row in MODEL if not row.only or family in row.only)


def may_change_on_resume(name: str) -> bool:
    """Return whether a run may be resumed with another value of the option with this path (see `flatten`)."""
    row = row_of(name)
    return row is not None and row.resumable


def has_effect(option: Option, values: Mapping[str, Any]) -> bool:
    """Return whether an option has an effect, given the values of the other options by path (see `Option.only`)."""
    if not option.only:
        return True
    other, *having = option.only
    return values[other] > 0 if having == [ABOVE_0] else values[other] in having


def row_of(name: str) -> Option | None:
    """Return the row of an option, given its path or that of a value in it, such as "total.steps"; None if there is none."""
    path = re.sub(r"\bparts\.[^.]+\.", "", name)  # A part of a mixture has the same options as data without parts.
    return next((option for option in OPTIONS if f"{path}.".startswith(f"{option.name}.")), None)
