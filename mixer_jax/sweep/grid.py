"""The runs of a sweep, as data: nothing here reads a file or starts a program.

A sweep that holds images out has two stages, as the paper's fine-tuning has (arXiv 2105.01601, section 3): every setting is
trained once on a part of the training split and evaluated on the rest, and the best one is trained on all of it with each seed.
Only the second stage sees the evaluators of the config. A sweep that holds nothing out has the first stage alone, in which every
setting is trained with each seed, and only the evaluator that decides is used.
"""

import itertools
import math
import re
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from ml_collections import ConfigDict

from mixer_jax.config import flatten, new_evaluator
from mixer_jax.config_files import evaluator_of
from mixer_jax.data.sources.own_data import SLICE_SIGNS, overlap
from mixer_jax.errors import UserError
from mixer_jax.sweep.job import Job, config_of, read_config

DEV = "dev"  # the evaluator of the images that are held out
TEST = "test"  # the evaluator that nothing is chosen by
CHOOSING, FINAL = "choosing", "final"  # the folders of the two stages
SHARE = re.compile(r"([1-9]\d?)%")
UNSAFE = re.compile(r"[^\w.+-]")  # characters that the name of a folder does not get

Setting: TypeAlias = tuple[tuple[str, str], ...]
"""The option and the value of each option that varies, as typed: (("optimizer.learning_rate", "0.01"),)."""


class Sweep(NamedTuple):
    """A sweep.

    Attributes:
      config: FILE.py or FILE.py:ROW.
      flags: the flags of all its runs, such as --config.batch_size=64.
      vary: {option: its values}, as typed.
      seeds: the values of config.seed.
      evaluator: the evaluator that decides.
      metric: the name of its figure that decides. The highest is the best, or the lowest if it is a loss.
      workdir: the folder of all its runs, or gs://BUCKET/FOLDER.
      hold_out: the split to train on while choosing, and the split that decides; or None.
    """

    config: str
    flags: tuple[str, ...]
    vary: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    evaluator: str
    metric: str
    workdir: str
    hold_out: tuple[str, str] | None = None

    @property
    def command(self) -> str:
        """The command for a shell that runs the whole sweep."""
        words = ["python", "-m", "mixer_jax", "sweep", f"--config={self.config}", *self.flags]
        words += [f"--vary={option}={','.join(values)}" for option, values in self.vary.items()]
        words += [f"--seeds={','.join(map(str, self.seeds))}", f"--select=evals.{self.evaluator}.{self.metric}"]
        words += [f"--hold-out={','.join(self.hold_out)}"] if self.hold_out else []
        return shlex.join([*words, f"--workdir={self.workdir}", "--run"])


def settings(sweep: Sweep) -> list[Setting]:
    """Return all combinations of values."""
    return [tuple(zip(sweep.vary, values, strict=True)) for values in itertools.product(*sweep.vary.values())]


def check(sweep: Sweep) -> None:
    """Raise UserError for a sweep whose runs cannot be made: an option or a value is wrong, or two settings share a folder."""
    found = settings(sweep)
    if len({folder_of(setting) for setting in found}) < len(found):
        raise UserError("Two settings of this sweep would have the same folder: write each value once.")
    for setting, jobs in choosing_jobs(sweep).items():
        for job in (*jobs[:1], *final_jobs(sweep, setting)[:1]):
            config_of(job)


def choosing_jobs(sweep: Sweep) -> dict[Setting, list[Job]]:
    """Return the jobs of each setting that its choice depends on: none if only one setting has to be trained with each seed.

    Raises UserError if the config cannot be read, or has no evaluator that could decide.
    """
    if sweep.hold_out and len(settings(sweep)) == 1:
        return {settings(sweep)[0]: []}
    config = read_config(sweep.config, sweep.flags)
    seeds = sweep.seeds[:1] if sweep.hold_out else sweep.seeds
    flags = _flags_of_held_out(sweep, config) if sweep.hold_out else _flags_of_one_evaluator(sweep, config)
    return {setting: list(_jobs(sweep, CHOOSING, setting, flags, seeds)) for setting in settings(sweep)}


def final_jobs(sweep: Sweep, best: Setting) -> list[Job]:
    """Return the jobs of the second stage, or [] if nothing is held out."""
    return list(_jobs(sweep, FINAL, best, sweep.flags, sweep.seeds)) if sweep.hold_out else []


def best_of(sweep: Sweep, figures: Mapping[Setting, Sequence[float | None]]) -> Setting:
    """Return the setting with the best mean of these figures, the first one of several. None stands for NaN, which is the worst.

    Raises UserError if no setting has a mean.
    """
    means = {setting: statistics.fmean(values) for setting, values in figures.items() if None not in values}
    means = {setting: mean for setting, mean in means.items() if math.isfinite(mean)}
    if not means:
        raise UserError(
            f"No run of {sweep.workdir} has a finite {sweep.evaluator}.{sweep.metric}: all diverged. Vary other values."
        )
    return (min if is_loss(sweep.metric) else max)(means, key=means.__getitem__)


def is_loss(metric: str) -> bool:
    """Return whether the lowest figure of a metric is the best."""
    return metric.endswith("loss")


def held_out(split: str, share: str) -> tuple[str, str]:
    """Return the splits without and with the last images of a split, for a share such as 10%.

    `share` may also name both splits: TRAIN,DEV. Raises UserError if it is neither, or if the split is cut already.
    """
    if "," in share:
        train, _, dev = share.partition(",")
        return train, dev
    found, parts = SHARE.fullmatch(share), split.split("+")
    if not found or not all(re.fullmatch(r"\w+", part) for part in parts):
        raise UserError(
            f"--hold-out={share} cannot be cut off the split {split!r}: write a share from 1% to 99% of whole splits, "
            "or the names of two splits, as in --hold-out=train800,val200."
        )
    end = 100 - int(found[1])
    return "+".join(f"{part}[:{end}%]" for part in parts), "+".join(f"{part}[{end}%:]" for part in parts)


def _jobs(sweep: Sweep, stage: str, setting: Setting, flags: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    values = [f"--config.{option}={value}" for option, value in setting]
    for seed in seeds:
        workdir = f"{sweep.workdir}/{stage}/{folder_of(setting)}/seed{seed}"
        yield Job(sweep.config, (*flags, *values, f"--config.seed={seed}"), workdir)


def folder_of(setting: Setting) -> str:
    """Return the name of the folder of a setting, such as optimizer.learning_rate=0.01,ema_decay=0.9."""
    return ",".join(f"{option}={UNSAFE.sub('_', value)}" for option, value in setting)


def _flags_of_held_out(sweep: Sweep, config: ConfigDict) -> list[str]:
    """Return the flags of runs that are trained without the images that are held out, and evaluated on these alone.

    The evaluator is a copy of that of the test split, so images are prepared alike.
    """
    train, dev = sweep.hold_out
    if config.data.parts:
        raise UserError("The training data are a mixture, of which no images can be held out: leave --hold-out out.")
    signs = SLICE_SIGNS.get(config.data.source.partition(":")[0], "")
    if not {sign for sign in "[+" if sign in train} <= set(signs):
        raise UserError(f"{config.data.source} cannot give {train}: name a split for each, as in --hold-out=TRAIN,DEV.")
    if overlap(dev, train):
        raise UserError(f"The splits {train} and {dev} share images: what decides must not be trained on.")
    for name, options in config.evals.items():
        data = options.get("data")
        if data and data.source == config.data.source and overlap(dev, data.split):
            raise UserError(f"{dev} is also what the evaluator {name!r} has: nothing may be chosen by it. Name another split.")
    copied = _without_defaults(_test_evaluator(config))
    copied |= {f"data.{name}": value for name, value in _without_defaults_of_data(config).items()} | {"data.split": dev}
    kept = [flag for flag in sweep.flags if not evaluator_of(flag)]
    evaluator = [f"--config.evals.{DEV}.{name}={value}" for name, value in copied.items()]
    return [*kept, f"--config.data.split={train}", "--config.evals=None", *evaluator]


def _flags_of_one_evaluator(sweep: Sweep, config: ConfigDict) -> list[str]:
    if sweep.evaluator not in config.evals:
        raise UserError(
            f"The config has no evaluator {sweep.evaluator!r}, which is to decide: it has {', '.join(config.evals) or 'none'}."
        )
    kept = [flag for flag in sweep.flags if evaluator_of(flag) in ("", sweep.evaluator)]
    known = read_config(sweep.config, kept).evals
    return [*kept, *(f"--config.evals.{name}=None" for name in known if name != sweep.evaluator)]


def _test_evaluator(config: ConfigDict) -> ConfigDict:
    found = [options for options in config.evals.values() if options.kind == "classification"]
    if TEST in config.evals:
        found.insert(0, config.evals[TEST])
    if not found:
        raise UserError("The config has no evaluator of kind classification, of which one for the held-out images could be made.")
    return found[0]


def _without_defaults(evaluator: ConfigDict) -> dict[str, Any]:
    """Return the options of an evaluator that must be typed to get it, without those of its data."""
    default = flatten(new_evaluator((), evaluator.kind))
    return {
        name: value for name, value in flatten(evaluator).items() if value != default.get(name) and not name.startswith("data.")
    }


def _without_defaults_of_data(config: ConfigDict) -> dict[str, Any]:
    """Return the options of the training data that the data of an evaluator need."""
    default = flatten(new_evaluator((), "classification"))
    names = {name.removeprefix("data.") for name in default if name.startswith("data.")}
    return {
        name: value
        for name, value in flatten(config.data).items()
        if name in names and name != "split" and value != default[f"data.{name}"]
    }
