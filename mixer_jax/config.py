"""Every option of a run: its default, its unit, one line of meaning; and the check that options fit together.

A config file (configs/*.py) calls `default_config()`, changes a few fields and cites the paper's row it stands for. Nothing else
in the project gives an option a default. Not here: what the options do, which their own rooms say.
"""

import re
import sys

from ml_collections import ConfigDict

from mixer_jax.errors import UserError


def duration(*, steps: int = 0, epochs: float = 0.0, examples: int = 0) -> ConfigDict:
    """A length of training in one of three units; the fields left at 0 do not count. See `steps_of`."""
    return ConfigDict({"steps": steps, "epochs": float(epochs), "examples": examples})


def dataset(source: str = "", split: str = "train", **changes) -> ConfigDict:
    """Where labelled images come from (mixer_jax/data/sources/registry.py)."""
    config = ConfigDict(
        {
            "source": source,  # digits | glyphs | folder:DIR | tfds:NAME[/CONFIG][:VERSION] | vtab:TASK | records:DIR
            "split": split,  # as the source names it; slices such as train[:99%] too (tfds, records)
            "data_dir": "",  # tfds, vtab: where prepared data lies; empty: the library's default folder
            "max_labels": 1,  # tfds: the most classes one record has
            "verify": "full",  # records: full: SHA-256 of shards that are new or changed; ends: of 128 KiB of each (manifest.py)
            "num_examples": 0,  # glyphs: how many images the split has
            "examples_per_class": 0,  # keep this many of each class (chosen by subset_seed); 0: keep all
            "subset_seed": 0,
            "weight": 1.0,  # in a mixture: its share of the images is its weight over the sum of all
            "parts": ConfigDict(),  # of a mixture: name -> dataset(...); then source is empty
        }
    )
    return _changed(config, changes)


def mixture(**parts: ConfigDict) -> ConfigDict:
    """Several `dataset(...)`, each with a weight, as one, in the order of their names (data/stream/order.py).

    An epoch, as a length of training, is as many images as they have together.
    """
    config = dataset()
    config.parts = parts
    return config


def classification(data: ConfigDict, **changes) -> ConfigDict:
    """An evaluator of top-1, top-5 and loss over every example of a split (mixer_jax/evaluation/classification.py)."""
    config = ConfigDict(
        {
            "kind": "classification",
            "data": data,
            "every": duration(),  # how often during training; all 0: at the end only
            "batch_size": 0,  # images, over all devices; 0: the training batch size
            "resize": "small",  # small: shorter side to resize_size; square: both sides (paper, supplement C)
            "resize_size": 0,  # pixels, before the central crop to image_size; 0: image_size x 256/224, rounded
        }
    )
    return _changed(config, changes)


def fewshot(train: ConfigDict, test: ConfigDict, **changes) -> ConfigDict:
    """A linear few-shot evaluator on frozen features (mixer_jax/evaluation/fewshot.py)."""
    config = ConfigDict(
        {
            "kind": "fewshot",
            "train": train,
            "test": test,
            "every": duration(),
            "batch_size": 0,
            "resize": "square",
            "resize_size": 0,
            "shots": (1, 5, 10, 25),  # labelled images a class
            "seeds": (0, 1, 2),  # each chooses its own labelled images; the figure is the mean, all are listed
            "l2": 2.0**10,  # strength of the ridge
        }
    )
    return _changed(config, changes)


def _changed(config: ConfigDict, changes: dict) -> ConfigDict:
    config.lock()  # before the changes, so that an unknown one is an error
    config.update(changes)
    return config


def default_config() -> ConfigDict:
    """All options with their defaults, locked: an unknown key is an error that names the nearest known one."""
    config = ConfigDict()
    config.seed = 0  # root of all randomness: parameters, order, crops, mixup, dropout
    config.total = duration()  # length of the run; exactly one unit must be set
    config.batch_size = 4096  # images a step, over all devices
    config.accumulation_steps = 1  # micro-batches a step is split into; the update is that of the whole batch
    config.image_size = 224  # pixels, height and width of what the model sees
    config.num_classes = 1000  # K; must be the training source's
    config.init_from = ""  # a run's folder, one of its checkpoints/STEP, or a .npz or .safetensors file; empty: random parameters
    config.init_head = "new"  # with init_from: "new" zero-initialised head, "restore" the old one, or a "subset" of its classes
    config.init_classes = ""  # with init_head="subset": a text file, a line a class: its number in the old head

    config.model = ConfigDict()
    config.model.family = "mixer"  # mixer | vit | resnet; one that lacks an option below refuses it
    config.model.variant = "B/16"  # mixer, vit: SIZE/PATCH, with any patch size; resnet: R50x1, layers and width factor
    config.model.num_blocks = 0  # mixer, vit; this and the next four replace the variant's own value when not 0
    config.model.hidden_dim = 0  # all: C, channels; resnet: of the root at width factor 1
    config.model.channels_mlp_dim = 0  # mixer, vit: D_C
    config.model.tokens_mlp_dim = 0  # mixer: D_S
    config.model.num_heads = 0  # vit: attention heads
    config.model.tile_size = (
        0  # pixels; with image_size K times this, a Mixer's D_S is K^2 times as large (supplement C); 0: never
    )
    config.model.pooling = "token"  # vit: the head reads a class token (token) or the mean over patches (mean)
    config.model.pre_logits_dim = 0  # vit: width of a tanh layer before the head; 0: none
    config.model.dropout = 0.0  # mixer, vit: probability, after both dense layers of each MLP; vit: see models/vit.py too
    config.model.stoch_depth = 0.0  # mixer, vit: s: a branch of the last block is dropped with this probability, the first with 0
    config.model.stoch_depth_rescale = False  # mixer, vit: divide kept branches by 1 - p (see models/layers.py)
    config.model.dtype = "float32"  # of activations and matrix products: float32 or bfloat16; parameters are float32
    config.model.remat = False  # recompute each block in the backward pass: less memory, about a third more work
    config.model.head_bias_init = 0.0  # -log(num_classes) or so starts a sigmoid loss low

    config.data = dataset()
    config.loader = ConfigDict()
    config.loader.workers = 16  # that decode, on each host
    config.loader.processes = (
        True  # each worker is a process (stream/workers.py); False: a thread, which is enough for small data
    )
    config.loader.prefetch = 256  # decoded examples kept ready, a host
    config.loader.max_pixels = 2**26  # height x width; a file whose header says more is bad (2^26: 192 MiB decoded, a worker)
    config.loader.max_unreadable_share = 0.01  # of the training records; with more bad images than that, the run stops

    config.augment = ConfigDict()
    config.augment.crop = "inception"  # inception: random area and aspect; random: square of the resized image; resize: the whole
    config.augment.crop_min_area = 0.05  # inception: least share of the image's area that a crop keeps
    config.augment.crop_min_aspect = 0.75  # inception: least width / height of a crop
    config.augment.crop_max_aspect = 1.33
    config.augment.resize = "square"  # random: both sides to resize_size (as BiT); small: the shorter side
    config.augment.resize_size = 0  # random: pixels, before the square of image_size; 0: image_size x 256/224, rounded
    config.augment.flip = True  # left-right, with probability 1/2
    config.augment.randaugment_layers = 0  # operations an image; 0: none
    config.augment.randaugment_magnitude = 0  # m of Table 4
    config.augment.mixup = 0.0  # p of Beta(p, p); 0: none

    config.loss = ConfigDict()
    config.loss.kind = "sigmoid"  # sigmoid (summed over classes) or softmax cross-entropy
    config.loss.label_smoothing = 0.0  # softmax only

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # adam | sgd
    config.optimizer.b1 = 0.9  # adam
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.momentum = 0.9  # sgd
    config.optimizer.momentum_dtype = "float32"  # storage of the first moment: float32 or bfloat16
    config.optimizer.learning_rate = 1e-3  # the schedule's peak
    config.optimizer.weight_decay = 0.0  # decoupled: a step takes learning_rate x weight_decay x parameter away
    config.optimizer.weight_decay_pattern = ".*/kernel"  # parameter paths that decay (whole path, regular expression)
    config.optimizer.clip_norm = 1.0  # global norm of the gradients; 0: no clipping
    config.optimizer.multipliers = ()  # ((pattern, factor), ...): first match scales the learning rate; 0 freezes

    config.schedule = ConfigDict()
    config.schedule.decay = "linear"  # linear | cosine | constant
    config.schedule.warmup = duration()  # linear, from 0
    config.schedule.end_learning_rate = 0.0  # absolute value after the last step (linear, cosine)

    config.ema_decay = 0.0  # averaged parameters, used by evaluators when on; 0: off
    config.parallel = ConfigDict()
    config.parallel.fsdp = 1  # devices that share one copy of the parameters during a step, too; between steps all of them do
    config.evals = ConfigDict()  # name -> classification(...) or fewshot(...)
    config.checkpoint = ConfigDict()
    config.checkpoint.every = duration(steps=1000)  # and always at the end
    config.checkpoint.keep = 3  # the latest ones; at least 2, so that a damaged one has a predecessor
    config.log_every_steps = 50  # metrics.jsonl, TensorBoard and the progress line
    return config.lock()


# Options that change neither the parameters nor their meaning, only how a run is watched, stored or spread over machines:
# a run may be taken up again with other values of these (records.Workdir.refuse_other_run).
MAY_CHANGE_ON_RESUME = (
    r"(log_every_steps|data\.(.*\.)?verify|(checkpoint|evals|parallel)\..*"
    r"|loader\.(workers|processes|prefetch|max_unreadable_share))"
)

CHOICES = {
    "init_head": ("new", "restore", "subset"),
    "model.pooling": ("token", "mean"),
    "model.dtype": ("float32", "bfloat16"),
    "augment.crop": ("inception", "random", "resize"),
    "augment.resize": ("square", "small"),
    "loss.kind": ("sigmoid", "softmax"),
    "optimizer.name": ("adam", "sgd"),
    "optimizer.momentum_dtype": ("float32", "bfloat16"),
    "schedule.decay": ("linear", "cosine", "constant"),
}
PROBABILITIES = ("model.dropout", "model.stoch_depth", "loss.label_smoothing", "ema_decay", "loader.max_unreadable_share")
AT_LEAST = {
    "batch_size": 1, "accumulation_steps": 1, "image_size": 1, "num_classes": 1, "parallel.fsdp": 1, "log_every_steps": 1,
    "checkpoint.keep": 2, "loader.workers": 1, "loader.prefetch": 1, "loader.max_pixels": 1, "seed": 0, "augment.mixup": 0,
    "augment.randaugment_layers": 0, "optimizer.learning_rate": 0, "optimizer.weight_decay": 0, "optimizer.clip_norm": 0,
    "schedule.end_learning_rate": 0, "model.num_blocks": 0, "model.hidden_dim": 0, "model.channels_mlp_dim": 0,
    "model.tokens_mlp_dim": 0, "model.tile_size": 0, "model.num_heads": 0, "model.pre_logits_dim": 0,
}  # fmt: skip


def validate(config: ConfigDict) -> None:
    """Checks every rule that needs no data and no device. Raises UserError naming the field and what to set."""
    for field, choices in CHOICES.items():
        _require(_get(config, field) in choices, field, _get(config, field), f"one of {', '.join(choices)}")
    for field in PROBABILITIES:
        _require(0 <= _get(config, field) < 1, field, _get(config, field), "in [0, 1)")
    for field, least in AT_LEAST.items():
        _require(_get(config, field) >= least, field, _get(config, field), f"at least {least}")
    _validate_data("data", config.data)
    _require(not config.loader.processes or sys.platform == "linux", "loader.processes", True, "False on any system but Linux")
    _require(config.seed < 2**32, "seed", config.seed, "below 2^32")
    _require(
        config.batch_size % config.accumulation_steps == 0,
        "accumulation_steps", config.accumulation_steps, f"a divisor of batch_size={config.batch_size}",
    )  # fmt: skip
    _require(
        config.loss.kind == "softmax" or config.loss.label_smoothing == 0,
        "loss.label_smoothing", config.loss.label_smoothing, "0 with loss.kind=sigmoid",
    )  # fmt: skip
    _require(
        config.init_head == "new" or bool(config.init_from),
        "init_from", config.init_from, f"a run's folder or a file of weights, because init_head={config.init_head}",
    )  # fmt: skip
    _require(
        (config.init_head == "subset") == bool(config.init_classes),
        "init_classes", config.init_classes, "a file of class numbers with init_head=subset, and empty otherwise",
    )  # fmt: skip
    _validate_augment(config.augment, config.image_size)
    _validate_durations(config)
    _validate_patterns(config.optimizer)
    for name, evaluator in config.evals.items():
        _validate_evaluator(f"evals.{name}", evaluator)


def _validate_data(field: str, data: ConfigDict) -> None:
    _require(data.verify in ("full", "ends"), f"{field}.verify", data.verify, "one of full, ends")
    if not data.parts:
        _require(bool(data.source), f"{field}.source", data.source, "a source such as tfds:imagenet2012")
    else:
        _require(not data.source, f"{field}.source", data.source, f"empty with {field}.parts")
        _require(not data.examples_per_class, f"{field}.examples_per_class", data.examples_per_class, "0; its parts may have it")
    for name, part in data.parts.items():
        _require(not part.parts, f"{field}.parts.{name}.parts", part.parts, "empty: a mixture has no mixtures")
        _require(part.weight > 0, f"{field}.parts.{name}.weight", part.weight, "above 0")
        _validate_data(f"{field}.parts.{name}", part)


def _validate_augment(augment: ConfigDict, image_size: int) -> None:
    _require(0 < augment.crop_min_area <= 1, "augment.crop_min_area", augment.crop_min_area, "in (0, 1]")
    _require(
        0 < augment.crop_min_aspect <= augment.crop_max_aspect,
        "augment.crop_min_aspect", augment.crop_min_aspect, f"in (0, crop_max_aspect={augment.crop_max_aspect}]",
    )  # fmt: skip
    _require(
        augment.randaugment_layers == 0 or augment.randaugment_magnitude > 0,
        "augment.randaugment_magnitude", augment.randaugment_magnitude, "above 0 when randaugment_layers is",
    )  # fmt: skip
    _require(
        augment.resize_size == 0 or augment.crop == "random",
        "augment.resize_size", augment.resize_size, f"0 with augment.crop={augment.crop}",
    )  # fmt: skip
    _require(
        augment.resize_size == 0 or augment.resize_size >= image_size,
        "augment.resize_size", augment.resize_size, f"at least image_size={image_size}, which is cut out of it",
    )  # fmt: skip


def _validate_durations(config: ConfigDict) -> None:
    units = _units(config.total, "total")
    if len(units) != 1:
        raise UserError(
            f"config.total is {config.total.to_dict()}: exactly one of steps, epochs, examples must be set, for example "
            "--config.total.steps=1000 --config.total.epochs=0 --config.total.examples=0."
        )
    for field in ("schedule.warmup", "checkpoint.every"):
        _require_one_unit(field, _get(config, field))


def _validate_evaluator(field: str, evaluator: ConfigDict) -> None:
    _require_one_unit(f"{field}.every", evaluator.every)
    for name in ("data",) if evaluator.kind == "classification" else ("train", "test"):
        _validate_data(f"{field}.{name}", evaluator[name])
    _require(evaluator.resize in ("small", "square"), f"{field}.resize", evaluator.resize, "one of small, square")
    if evaluator.kind == "fewshot":
        _require(
            bool(evaluator.shots) and min(evaluator.shots) > 0, f"{field}.shots", evaluator.shots, "a tuple of counts above 0"
        )
        _require(len(evaluator.seeds) > 0, f"{field}.seeds", evaluator.seeds, "a tuple of at least one seed")
        _require(evaluator.l2 > 0, f"{field}.l2", evaluator.l2, "above 0")


def _validate_patterns(optimizer: ConfigDict) -> None:
    patterns = {"weight_decay_pattern": optimizer.weight_decay_pattern}
    for row in optimizer.multipliers:
        well_formed = isinstance(row, tuple | list) and len(row) == 2 and isinstance(row[0], str) and row[1] >= 0
        _require(well_formed, "optimizer.multipliers", optimizer.multipliers, "a tuple of (pattern, factor >= 0)")
        patterns[f"multipliers {row[0]!r}"] = row[0]
    for field, pattern in patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.optimizer.{field} is not a regular expression: {error}") from error


def steps_of(length: ConfigDict, *, batch_size: int, num_examples: int) -> int:
    """A duration in optimiser steps: 0 for an unset one.

    Epochs and examples are rounded to the nearest step, so that 300 epochs of ImageNet (1 281 167 images) at batch 4096 are
    93 835 steps, as in the paper's arithmetic, on any number of devices.
    """
    if length.steps:
        return length.steps
    examples = length.examples or length.epochs * num_examples
    return max(1, round(examples / batch_size)) if examples else 0


def flatten(config: ConfigDict) -> dict:
    """{"optimizer.b1": 0.9, ...}, in the order of the keys' names."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return dict(sorted(flat.items()))


def _units(length: ConfigDict, field: str) -> list[str]:
    for unit, value in length.items():
        _require(value >= 0, f"{field}.{unit}", value, "0 (unset) or more")
    return [unit for unit, value in length.items() if value > 0]


def _require_one_unit(field: str, length: ConfigDict) -> None:
    if len(_units(length, field)) > 1:
        raise UserError(
            f"config.{field} is {length.to_dict()}: set one unit and leave the others at 0 (--config.{field}.UNIT=0)."
        )


def _get(config: ConfigDict, field: str):
    for key in field.split("."):
        config = config[key]
    return config


def _require(condition: bool, field: str, value, expected: str) -> None:
    if not condition:
        raise UserError(f"config.{field} is {value!r}: it must be {expected}. Set it with --config.{field}=...")
