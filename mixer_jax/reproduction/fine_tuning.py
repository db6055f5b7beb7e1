"""The fine-tunings behind a cell: which data sets, which config with which flags, and how many runs the paper's protocol has.

The paper tries every learning rate on a part of the training split that it holds out, retrains on all of it with the best one,
and averages three such runs. It names the runs of the ViT paper (arXiv 2010.11929) and of BiT (arXiv 1912.11370) as its models.
"""

import dataclasses
from pathlib import Path

from mixer_jax.reproduction.exhibit import Row
from mixer_jax.reproduction.recipes import Pretraining, model_name

AVG5_TASKS = ("imagenet", "cifar10", "cifar100", "pets", "flowers")
VTAB_TASKS = (
    "caltech101", "cifar100", "dtd", "flowers", "pets", "sun397", "svhn",
    "patch_camelyon", "eurosat", "resisc45", "retinopathy",
    "clevr_count", "clevr_distance", "dmlab", "kitti_distance", "dsprites_location", "dsprites_orientation",
    "smallnorb_azimuth", "smallnorb_elevation",
)  # fmt: skip
TASKS = {"imagenet": ("imagenet",), "real": ("imagenet",), "avg5": AVG5_TASKS, "vtab": VTAB_TASKS}  # {column: its data sets}
SEEDS = 3
PRETRAINING_FOLDER = "pretraining"
MIXER_RATES = (0.003, 0.01, 0.03, 0.06)
VIT_RATES = (0.001, 0.003, 0.01, 0.03)  # for its small data sets; for ImageNet it tries those of Mixer
VTAB_RATES = (0.003, 0.01, 0.03)
FAMILIES = {"Mixer": "mixer", "ViT": "vit", "BiT": "resnet"}
REAL_DATA = ("tfds:imagenet2012_real", "validation")  # ReaL's labels: the source and the split
REAL_LABELS = (  # 16 is a bound for the number of classes of one image.
    f"--config.evals.real.data.source={REAL_DATA[0]}",
    f"--config.evals.real.data.split={REAL_DATA[1]}",
    "--config.evals.real.data.max_labels=16",
)
SQUARE, SHORTER_SIDE = "square", "small"  # crops (i) and (ii) of supplement C, as config.evals.*.resize names them


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """The runs on one data set for a row.

    Attributes:
      task: the data set.
      config: FILE.py:ROW.
      overrides: flags that belong to the row, such as --config.model.variant=L/16.
      evaluators: flags that add evaluators: ReaL's labels, for ImageNet.
      learning_rates: those that the paper tries.
      folder: the folder of the runs in the folder of the pre-training, such as cifar100-448.
    """

    task: str
    config: str
    overrides: tuple[str, ...]
    evaluators: tuple[str, ...]
    learning_rates: tuple[float, ...]
    folder: str

    @property
    def num_runs(self) -> int:
        """The number of runs: one for each learning rate on the dev split, then three on all training images."""
        return len(self.learning_rates) + SEEDS

    def command(self, workdir: Path, pretraining: Pretraining) -> str:
        """Return the command of a run on all training images, with RATE and SEED for its learning rate and its seed."""
        folder = workdir / pretraining.folder
        weights = pretraining.released or f"{folder}/{PRETRAINING_FOLDER}"
        flags = [f"--workdir={folder}/{self.folder}/lrRATE/seedSEED", f"--config.init_from={weights}", *self.overrides]
        flags += [*self.evaluators, "--config.optimizer.learning_rate=RATE", "--config.seed=SEED"]
        return " ".join(["python train.py", f"--config={self.config}", *flags])


def pretraining_command(workdir: Path, pretraining: Pretraining) -> str:
    """Return the command of a pre-training."""
    folder = workdir / pretraining.folder / PRETRAINING_FOLDER
    return f"python train.py --config={pretraining.config} --workdir={folder}"


def fine_tunings(row: Row, column: str, pretraining: Pretraining, pixels: int, resize: str) -> tuple[FineTuning, ...]:
    """Return the fine-tunings whose mean is a cell.

    Args:
      row: The row, whose model has a recipe.
      column: The column: a key of TASKS.
      pretraining: The pre-training of the row.
      pixels: The image size of the row. VTAB-1k has its own.
      resize: The crop with which the exhibit evaluates.
    """
    make = _vtab if column == "vtab" else _downstream
    return tuple(make(row, task, pretraining, pixels, resize) for task in TASKS[column])


def _downstream(row: Row, task: str, pretraining: Pretraining, pixels: int, resize: str) -> FineTuning:
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
    evaluators = (*REAL_LABELS, f"--config.evals.real.resize={wanted}") if task == "imagenet" else ()
    rates = VIT_RATES if family == "vit" and task != "imagenet" else MIXER_RATES
    config = f"configs/finetune.py:{task}{',448' if at_448 else ''}"
    return FineTuning(task, config, tuple(flags), evaluators, rates, f"{task}-{pixels}-{wanted}")


def _vtab(row: Row, task: str, *_: object) -> FineTuning:
    return FineTuning(task, f"configs/finetune_vtab.py:{task}", tuple(_model_flags(row)), (), VTAB_RATES, f"vtab-{task}")


def _model(row: Row) -> tuple[str, str]:
    name, _, variant = model_name(row).partition("-")
    return FAMILIES[name], variant


def _model_flags(row: Row) -> list[str]:
    family, variant = _model(row)
    return [*([f"--config.model.family={family}"] if family != "mixer" else []), f"--config.model.variant={variant}"]
