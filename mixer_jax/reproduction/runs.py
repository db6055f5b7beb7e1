"""Our figure of a cell, from the folders of its runs.

The runs of a row lie in WORKDIR/PRE-TRAINING: the pre-training itself in pretraining/, and each fine-tuning in
TASK/lrRATE/seedNUMBER/. A folder is named by what its runs are, so exhibits share runs. A run counts when its results.json has
the figure at the last step. Its config.json is compared with the recipe, and each difference is a deviation.
"""

import copy
import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from mixer_jax import app
from mixer_jax.config import dataset, flatten, without_paths
from mixer_jax.errors import UserError
from mixer_jax.planning.estimate import total_steps
from mixer_jax.recorded_config import differences, usable_config
from mixer_jax.records import read_results
from mixer_jax.reproduction.fine_tuning import PRETRAINING_FOLDER, REAL_DATA, SEEDS, FineTuning
from mixer_jax.reproduction.recipes import Pretraining
from mixer_jax.storage import read_json

FROM_RELEASED = "From the authors' released weights: their pre-training was not repeated."
NOT_CHOSEN = "The learning rate was not chosen on held-out images of the training split."
NO_MATTER = ("batch_size", "max_predictions", "data.max_labels", "data.verify")  # They change no figure of an evaluator.
IGNORED = ("optimizer.learning_rate", "seed", "init_from")  # These differ between the runs of a cell, or are compared apart.


@dataclasses.dataclass(frozen=True)
class Ours:
    """Our figure of a cell.

    Attributes:
      value: the mean over seeds and data sets, in percent. None: at least one run is missing.
      finished: the number of finished runs on each data set.
      deviations: how they differ from the paper's.
      reason: why there is no figure although there are runs, or "".
    """

    value: float | None = None
    finished: tuple[int, ...] = ()
    deviations: tuple[str, ...] = ()
    reason: str = ""


def ours_of(workdir: Path, pretraining: Pretraining, fine_tunings: Sequence[FineTuning], evaluator: str) -> Ours:
    """Return our figure of a cell, the mean over its data sets of the top-1 accuracy of `evaluator`."""
    folder = workdir / pretraining.folder
    found = [_of_task(folder, pretraining, fine_tuning, evaluator) for fine_tuning in fine_tunings]
    finished = tuple(sum(ours.finished) for ours in found)
    deviations = tuple(dict.fromkeys(deviation for ours in found for deviation in ours.deviations))
    values = [ours.value for ours in found if ours.value is not None]
    reason = " ".join(dict.fromkeys(ours.reason for ours in found if ours.reason))
    if any(finished) and len(values) < len(found) and not reason:
        reason = f"{len(values)} of {len(found)} data sets have a finished run."
    return Ours(statistics.mean(values) if len(values) == len(found) else None, finished, deviations, reason)


def is_pretrained(workdir: Path, pretraining: Pretraining) -> bool:
    """Return whether the pre-training of a row has ended in `workdir`."""
    recipe = app.read_config(pretraining.config, [])
    return read_results(workdir / pretraining.folder / PRETRAINING_FOLDER).get("step") == total_steps(recipe)


def _of_task(folder: Path, pretraining: Pretraining, fine_tuning: FineTuning, evaluator: str) -> Ours:
    runs = sorted((folder / fine_tuning.folder).glob("lr*/seed*"))
    finished = {run: top1 for run in runs if (top1 := _top1(run, evaluator)) is not None}
    if not finished:
        return Ours()
    configs = [_config_of(run) for run in finished]
    rates = sorted({config.optimizer.learning_rate for config in configs})
    if len(rates) > 1:
        which = ", ".join(map(str, rates))
        reason = f"{fine_tuning.folder} has runs with learning rates {which}: choosing one by the test split is not allowed."
        return Ours(None, (len(finished),), (), reason)
    num_seeds = len({config.seed for config in configs})
    deviations = [f"{num_seeds} of {SEEDS} seeds in {len(finished)} runs."] if not num_seeds == len(finished) == SEEDS else []
    deviations.append(NOT_CHOSEN)
    for run in finished:
        deviations += _deviations_of_run(run, folder, pretraining, fine_tuning, evaluator)
    return Ours(100 * statistics.mean(finished.values()), (len(finished),), tuple(dict.fromkeys(deviations)))


def _top1(run: Path, evaluator: str) -> float | None:
    """Return the top-1 accuracy of a run after its last step, or None if it has none yet."""
    results = read_results(run)
    if not results or results.get("step") != _config_of(run).total.steps:
        return None
    return results.get("evals", {}).get(evaluator, {}).get("top1")


def _config_of(run: Path) -> ConfigDict:
    """Return the config of a run. Raises UserError if it has none, or a damaged one."""
    file = run / "config.json"
    content = read_json(file)
    if not content:
        raise UserError(f"{run} has results, but {file} is missing or empty: remove the folder or bring the file back.")
    try:
        return usable_config(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not the config of a run: {error}") from error


def _deviations_of_run(run: Path, folder: Path, pretraining: Pretraining, fine_tuning: FineTuning, evaluator: str) -> list[str]:
    config = _config_of(run)
    recipe = app.read_config(fine_tuning.config, list(fine_tuning.overrides))
    deviations = _changes("fine-tuning", recipe, config)
    if config.optimizer.learning_rate not in fine_tuning.learning_rates:
        deviations.append(f"The learning rate {config.optimizer.learning_rate} is none of those that the paper tries.")
    deviations += _deviations_of_evaluation(recipe, config, evaluator)
    return [*deviations, *_deviations_of_weights(config.init_from, folder / PRETRAINING_FOLDER, pretraining)]


def _deviations_of_evaluation(recipe: ConfigDict, config: ConfigDict, evaluator: str) -> list[str]:
    """Return how an evaluator of a run differs from the recipe's, in its data and in what it does with images."""
    wanted = copy.deepcopy(recipe.evals.test)
    if evaluator == "real":
        wanted.data = dataset(*REAL_DATA)
    then, now = (without_paths(flatten(options)) for options in (wanted, config.evals[evaluator]))
    names = [name for name in then if then[name] != now.get(name) and name not in NO_MATTER and not name.startswith("every.")]
    return [f"evaluation: {name}={now.get(name)!r} instead of {then[name]!r}." for name in names]


def _deviations_of_weights(init_from: str, own: Path, pretraining: Pretraining) -> list[str]:
    """Return how the weights that a run started from differ from those of the recipe."""
    if init_from and init_from == pretraining.released:
        return [FROM_RELEASED]
    if init_from and Path(init_from).expanduser().resolve() == own.resolve() and (own / "config.json").exists():
        recipe = app.read_config(pretraining.config, [])
        steps, step = total_steps(recipe), read_results(own).get("step")
        unfinished = [f"The pre-training is at step {step} of {steps}."] if step != steps else []
        return [*unfinished, *_changes("pre-training", recipe, _config_of(own))]
    return [f"It starts from {init_from or 'random weights'}, and not from {own}."]


def _changes(stage: str, recipe: ConfigDict, config: ConfigDict) -> list[str]:
    found = differences(recipe, config)
    return [f"{stage}: {name}={now!r} instead of {then!r}." for name, (then, now) in found.items() if name not in IGNORED]
