"""The fine-tunings behind a cell: which data sets, which config with which flags, and how many runs the paper's protocol has.

The paper tries every learning rate on a part of the training split that it holds out, retrains on all of it with the best one,
and averages three such runs. It names the runs of the ViT paper (arXiv 2010.11929) and of BiT (arXiv 1912.11370) as its models.
"""

import dataclasses
from collections.abc import Sequence

from mixer_jax import app
from mixer_jax.config_files import evaluator_of
from mixer_jax.data_locations import read_locations
from mixer_jax.reproduction.exhibit import Row
from mixer_jax.reproduction.recipes import Pretraining, model_name
from mixer_jax.reproduction.setup import SEEDS, Setup
from mixer_jax.sweep.grid import DEV, Sweep, held_out
from mixer_jax.sweep.job import Job, read_config

AVG5_TASKS = ("imagenet", "cifar10", "cifar100", "pets", "flowers")
VTAB_TASKS = (
    "caltech101", "cifar100", "dtd", "flowers", "pets", "sun397", "svhn",
    "patch_camelyon", "eurosat", "resisc45", "retinopathy",
    "clevr_count", "clevr_distance", "dmlab", "kitti_distance", "dsprites_location", "dsprites_orientation",
    "smallnorb_azimuth", "smallnorb_elevation",
)  # fmt: skip
TASKS = {"imagenet": ("imagenet",), "real": ("imagenet",), "avg5": AVG5_TASKS, "vtab": VTAB_TASKS}  # {column: its data sets}
HELD_OUT = {"imagenet": "1%", "cifar10": "2%", "cifar100": "2%", "pets": "10%", "flowers": "10%"}  # to choose by
HELD_OUT_OF_VTAB = "train800,val200"
MIXER_RATES = (0.003, 0.01, 0.03, 0.06)
VIT_RATES = (0.001, 0.003, 0.01, 0.03)  # for its small data sets; for ImageNet it tries those of Mixer
VTAB_RATES = (0.003, 0.01, 0.03)
HYPERRULE_RATES = (0.003,)
FAMILIES = {"Mixer": "mixer", "ViT": "vit", "BiT": "resnet"}
REAL_DATA = ("tfds:imagenet2012_real", "validation")  # ReaL's labels: the source and the split
REAL_LABELS = (  # 16 is a bound for the number of classes of one image.
    f"--config.evals.real.data.source={REAL_DATA[0]}",
    f"--config.evals.real.data.split={REAL_DATA[1]}",
    "--config.evals.real.data.max_labels=16",
)
SQUARE, SHORTER_SIDE = "square", "small"  # crops (i) and (ii) of supplement C, as config.evals.*.resize names them
WHOLE = "whole"


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """The runs on one data set for a row.

    Attributes:
      task: the data set.
      config: FILE.py:ROW.
      overrides: flags that belong to the row, such as --config.model.variant=L/16.
      evaluators: flags that add evaluators: ReaL's labels.
      learning_rates: those that the paper tries.
      hold_out: what the paper holds out of the training split to choose among them.
      folder: the folder of the runs in the folder of the pre-training, such as cifar100-448.
    """

    task: str
    config: str
    overrides: tuple[str, ...]
    evaluators: tuple[str, ...]
    learning_rates: tuple[float, ...]
    hold_out: str
    folder: str

    @property
    def num_runs(self) -> int:
        """The number of runs: one for each learning rate, if there are several, and then three on all training images."""
        return len(self.learning_rates) * (len(self.learning_rates) > 1) + SEEDS

    def sweep(self, pretraining: Pretraining, setup: Setup) -> Sweep:
        """Return all runs on this data set. Raises UserError if the config cannot be read."""
        weights = pretraining.weights(setup)
        own = (f"--config.init_from={weights}", *self.overrides, *self.evaluators)
        flags = (*setup.locations, *own, *_flags_for(self.config, own, setup))
        rates = {"optimizer.learning_rate": tuple(map(str, self.learning_rates))}
        folder = f"{setup.workdir}/{pretraining.folder}/{self.folder}"
        return Sweep(self.config, flags, rates, range(setup.seeds), DEV, "top1", folder, self._held_out(setup))

    def replaced_data(self, setup: Setup) -> str:
        """Return a sentence about the data that stand in for those of the config, or "" if they have the same source."""
        wanted, used = (app.read_config(self.config, list(flags)).data.source for flags in ((), setup.locations))
        return f"{used} stands in for {wanted}: the file of --data-locations says so." if used != wanted else ""

    def _held_out(self, setup: Setup) -> tuple[str, str]:
        """Return the splits to train on while choosing and to choose by, with the names that they have where the data lie."""
        data = app.read_config(self.config, []).data
        splits = held_out(data.split, self.hold_out)
        location = read_locations(setup.data_locations).get(data.source) if setup.data_locations else None
        return (location.split(splits[0]), location.split(splits[1])) if location else splits


def pretraining_job(pretraining: Pretraining, setup: Setup) -> Job:
    """Return the run of a pre-training."""
    flags = (*setup.locations, *pretraining.flags, *_flags_for(pretraining.config, pretraining.flags, setup))
    return Job(pretraining.config, flags, pretraining.own_weights(setup))


def _flags_for(config: str, own: Sequence[str], setup: Setup) -> tuple[str, ...]:
    """Return the user's flags for a config with flags of its own, without those for evaluators that it does not have."""
    if not any(map(evaluator_of, setup.flags)):
        return setup.flags
    known = {"", *read_config(config, own).evals}
    return tuple(flag for flag in setup.flags if evaluator_of(flag) in known)


def fine_tunings(row: Row, column: str, pretraining: Pretraining, pixels: int, resize: str) -> tuple[FineTuning, ...]:
    """Return the fine-tunings whose mean is a cell.

    Args:
      row: The row, whose model has a recipe.
      column: The column: a key of TASKS.
      pretraining: The pre-training of the row.
      pixels: The image size of the row. VTAB-1k has its own.
      resize: The crop with which the exhibit evaluates.
    """
    if column == "vtab":
        return tuple(_vtab(row, task) for task in TASKS[column])
    if "[22]" in row.name:
        return tuple(_hyperrule(task, with_real=column == "real") for task in TASKS[column])
    return tuple(_downstream(row, task, pretraining, pixels, resize, with_real=column == "real") for task in TASKS[column])


def _downstream(row: Row, task: str, pretraining: Pretraining, pixels: int, resize: str, with_real: bool) -> FineTuning:
    family, _ = _model(row)
    at_448 = pixels == 448
    flags = [*_model_flags(row), *(["--config.model.pooling=mean"] if pretraining.config.endswith("-300ep") else [])]
    if pixels not in (224, 448):
        flags.append(f"--config.image_size={pixels}")
    wanted = SQUARE if family == "resnet" and task == "imagenet" else resize
    if wanted != (SQUARE if at_448 else SHORTER_SIDE):
        flags.append(f"--config.evals.test.resize={wanted}")
    if "[14]" in row.name and task == "imagenet":
        flags.append("--config.ema_decay=0.9999")  # the ViT paper's Polyak averaging
    evaluators = (*REAL_LABELS, f"--config.evals.real.resize={wanted}") if with_real else ()
    rates = VIT_RATES if family == "vit" and task != "imagenet" else MIXER_RATES
    config = f"configs/finetune.py:{task}{',448' if at_448 else ''}"
    return FineTuning(task, config, tuple(flags), evaluators, rates, HELD_OUT[task], f"{task}-{pixels}-{wanted}")


def _hyperrule(task: str, with_real: bool) -> FineTuning:
    """Return BiT's own fine-tuning, at its own size."""
    evaluators = (*REAL_LABELS, f"--config.evals.real.resize={WHOLE}") if with_real else ()
    config = f"configs/finetune_bit.py:{task}"
    return FineTuning(task, config, (), evaluators, HYPERRULE_RATES, HELD_OUT[task], f"{task}-hyperrule")


def _vtab(row: Row, task: str) -> FineTuning:
    config, flags = f"configs/finetune_vtab.py:{task}", tuple(_model_flags(row))
    return FineTuning(task, config, flags, (), VTAB_RATES, HELD_OUT_OF_VTAB, f"vtab-{task}")


def _model(row: Row) -> tuple[str, str]:
    name, _, variant = model_name(row).partition("-")
    return FAMILIES[name], variant


def _model_flags(row: Row) -> list[str]:
    family, variant = _model(row)
    return [*([f"--config.model.family={family}"] if family != "mixer" else []), f"--config.model.variant={variant}"]
