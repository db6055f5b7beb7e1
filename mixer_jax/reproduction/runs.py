"""Our figure of a cell, from the folders of its runs.

The runs of a row lie in WORKDIR/PRE-TRAINING: the pre-training itself in pretraining/, and each fine-tuning in TASK/, which is
the folder of a sweep. A folder is named by what its runs are, so exhibits share runs. A run counts when its results.json has the
figure at the last step. Its config.json is compared with the recipe, and each difference is a deviation.
"""

import copy
import dataclasses
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from mixer_jax import app
from mixer_jax.bucket import is_in_bucket
from mixer_jax.config import dataset
from mixer_jax.errors import UserError
from mixer_jax.recorded_config import differences, evaluator_differences
from mixer_jax.reproduction.evidence import Evidence, evidence_of
from mixer_jax.reproduction.fine_tuning import REAL_DATA, FineTuning
from mixer_jax.reproduction.recipes import Pretraining
from mixer_jax.reproduction.setup import SEEDS, Setup
from mixer_jax.storage import open_storage, read_json_in
from mixer_jax.sweep.grid import CHOOSING, FINAL
from mixer_jax.sweep.job import DONE, recorded_config_of, steps_of
from mixer_jax.sweep.stages import progress_of

FROM_RELEASED = "From the authors' released weights: their pre-training was not repeated."
NOT_CHOSEN = "The learning rate was not chosen on held-out images of the training split."
# Nobody outside Google has these, so whatever --data-locations names in their place is other data.
JFT_SOURCES = ("tfds:jft300m", "tfds:jft3b")
IGNORED = ("optimizer.learning_rate", "seed", "init_from")  # These differ between the runs of a cell, or are compared apart.


@dataclasses.dataclass(frozen=True)
class Ours:
    """Our figure of a cell.

    Attributes:
      value: the mean over seeds and data sets, in percent. None: at least one run is missing.
      finished: the number of finished runs on each data set, with those that the learning rate is chosen by.
      deviations: how they differ from the paper's.
      reason: why there is no figure although there are runs, which step the figure is of if that was found out, or "".
      runs: the finished runs behind the figure.
    """

    value: float | None = None
    finished: tuple[int, ...] = ()
    deviations: tuple[str, ...] = ()
    reason: str = ""
    runs: tuple[Evidence, ...] = ()


def ours_of(setup: Setup, pretraining: Pretraining, fine_tunings: Sequence[FineTuning], evaluator: str) -> Ours:
    """Return our figure of a cell, the mean over its data sets of the top-1 accuracy of `evaluator`."""
    found = [_of_task(setup, pretraining, fine_tuning, evaluator) for fine_tuning in fine_tunings]
    finished = tuple(sum(ours.finished) for ours in found)
    deviations = tuple(dict.fromkeys(deviation for ours in found for deviation in ours.deviations))
    values = [ours.value for ours in found if ours.value is not None]
    reason = " ".join(dict.fromkeys(ours.reason for ours in found if ours.reason))
    if any(finished) and len(values) < len(found) and not reason:
        reason = f"{len(values)} of {len(found)} data sets have a figure."
    if len(values) < len(found):
        return Ours(None, finished, deviations, reason)
    return Ours(statistics.mean(values), finished, deviations, reason, tuple(run for ours in found for run in ours.runs))


def is_pretrained(setup: Setup, pretraining: Pretraining) -> bool:
    """Return whether the pre-training of a row has ended, and is as long as its recipe says."""
    run = pretraining.own_weights(setup)
    (step, last), recorded = steps_of(run), recorded_config_of(run)
    is_whole = recorded is not None and recorded.total == _recipe_of(pretraining, setup).total
    return is_whole and step is not None and step == last


def _of_task(setup: Setup, pretraining: Pretraining, fine_tuning: FineTuning, evaluator: str) -> Ours:
    """Return our figure on one data set: the mean of the runs with the learning rate that was chosen on held-out images.

    If none was chosen, and all runs that have ended have one learning rate, it is their mean.
    """
    sweep = fine_tuning.sweep(pretraining, setup)
    runs = _folders_of_runs(sweep.workdir)
    finished = {run: top1 for run in runs[FINAL] if (top1 := _top1(run, evaluator)) is not None}
    progress = progress_of(sweep) if runs[CHOOSING] or len(fine_tuning.learning_rates) == 1 else None
    num_chosen_from = sum(state.word == DONE for pairs in progress.choosing.values() for _, state in pairs) if progress else 0
    best = dict(progress.best)["optimizer.learning_rate"] if progress and progress.best else None
    configs = {run: _config_of(run) for run in finished}
    rates = sorted({config.optimizer.learning_rate for config in configs.values()})
    count = len(finished) + num_chosen_from
    if best is not None:
        finished = {run: top1 for run, top1 in finished.items() if configs[run].optimizer.learning_rate == float(best)}
    elif len(rates) > 1:
        which = ", ".join(map(str, rates))
        reason = f"{fine_tuning.folder} has runs with learning rates {which}: choosing one by the test split is not allowed."
        return Ours(None, (count,), (), reason)
    if not finished:
        return Ours(None, (count,))
    num_seeds = len({configs[run].seed for run in finished})
    deviations = [f"{num_seeds} of {SEEDS} seeds in {len(finished)} runs."] if not num_seeds == len(finished) == SEEDS else []
    deviations += [NOT_CHOSEN] if best is None else []
    for run in finished:
        deviations += _deviations_of_run(run, setup, pretraining, fine_tuning, evaluator)
    files = {run: [read_json_in(open_storage(run), name) for name in ("run.json", "results.json")] for run in finished}
    evidence = tuple(evidence_of(run, top1, *files[run]) for run, top1 in finished.items())
    return Ours(100 * statistics.mean(finished.values()), (count,), tuple(dict.fromkeys(deviations)), "", evidence)


def _folders_of_runs(folder: str) -> dict[str, list[str]]:
    """Return {stage: the folders of its runs} under the folder of a sweep."""
    runs: dict[str, list[str]] = {CHOOSING: [], FINAL: []}
    for name in open_storage(folder).names():
        if found := re.fullmatch(rf"(({CHOOSING}|{FINAL})/[^/]+/seed\d+)/results\.json", name):
            runs[found[2]].append(f"{folder}/{found[1]}")
    return runs


def _top1(run: str, evaluator: str) -> float | None:
    """Return the top-1 accuracy of a run after its last step, or None if it has none yet."""
    results = read_json_in(open_storage(run), "results.json")
    if not results or results.get("step") != _config_of(run).total.steps:
        return None
    return results.get("evals", {}).get(evaluator, {}).get("top1")


def _config_of(run: str) -> ConfigDict:
    """Return the config of a run. Raises UserError if it has none, or a damaged one."""
    if config := recorded_config_of(run):
        return config
    raise UserError(f"{run} has results, but {run}/config.json is missing or empty: remove the folder or bring the file back.")


def _deviations_of_run(run: str, setup: Setup, pretraining: Pretraining, fine_tuning: FineTuning, evaluator: str) -> list[str]:
    config = _config_of(run)
    recipe = app.read_config(fine_tuning.config, [*setup.locations, *fine_tuning.overrides])
    deviations = _changes("fine-tuning", recipe, config)
    if config.optimizer.learning_rate not in fine_tuning.learning_rates:
        deviations.append(f"The learning rate {config.optimizer.learning_rate} is none of those that the paper tries.")
    deviations += _deviations_of_evaluation(recipe, config, evaluator)
    return [*deviations, *_deviations_of_weights(config.init_from, setup, pretraining)]


def _deviations_of_evaluation(recipe: ConfigDict, config: ConfigDict, evaluator: str) -> list[str]:
    """Return how an evaluator of a run differs from the recipe's, in its data and in what it does with images."""
    wanted = copy.deepcopy(recipe.evals.test)
    if evaluator == "real":
        wanted.data = dataset(*REAL_DATA)
    return _deviations_of_evaluator(evaluator, wanted, config)


def _deviations_of_evaluator(evaluator: str, wanted: ConfigDict, config: ConfigDict) -> list[str]:
    if evaluator not in config.evals:
        return [f"evaluation: {evaluator} is not in the config of the run, so it is not known on which data it was made."]
    found = evaluator_differences(wanted, config.evals[evaluator])
    return [f"evaluation: {name}={now!r} instead of {then!r}." for name, (then, now) in found.items()]


def _deviations_of_weights(init_from: str, setup: Setup, pretraining: Pretraining) -> list[str]:
    """Return how the weights that a run started from differ from those of the recipe."""
    own = pretraining.own_weights(setup)
    if init_from and init_from == pretraining.released:
        return [FROM_RELEASED]
    if init_from and _is_same_folder(init_from, own) and recorded_config_of(own):
        step, last = steps_of(own)
        found = [f"The pre-training is at step {step} of {last}."] if step is None or step != last else []
        return [*found, *deviations_of_pretraining(setup, pretraining)]
    return [f"It starts from {init_from or 'random weights'}, and not from {own}."]


def deviations_of_pretraining(setup: Setup, pretraining: Pretraining) -> list[str]:
    """Return how the run of a pre-training, whose folder has a config.json, differs from its recipe."""
    recipe, source = _recipe_of(pretraining, setup), app.read_config(pretraining.config, []).data.source
    is_replaced = source in JFT_SOURCES and recipe.data.source != source
    found = [f"{source} is replaced by {recipe.data.source}."] if is_replaced else []
    return [*found, *_changes("pre-training", recipe, recorded_config_of(pretraining.own_weights(setup)))]


def deviations_of_evaluator(setup: Setup, pretraining: Pretraining, recorded: ConfigDict, evaluator: str) -> list[str]:
    """Return how an evaluator in a pre-training with this config differs from that of the recipe."""
    return _deviations_of_evaluator(evaluator, _recipe_of(pretraining, setup).evals[evaluator], recorded)


def _recipe_of(pretraining: Pretraining, setup: Setup) -> ConfigDict:
    """Return the config of a pre-training, with data where they lie here."""
    return app.read_config(pretraining.config, [*setup.locations, *pretraining.flags])


def _is_same_folder(one: str, other: str) -> bool:
    if is_in_bucket(one) or is_in_bucket(other):
        return one.rstrip("/") == other.rstrip("/")
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()


def _changes(stage: str, recipe: ConfigDict, config: ConfigDict) -> list[str]:
    found = differences(recipe, config)
    return [f"{stage}: {name}={now!r} instead of {then!r}." for name, (then, now) in found.items() if name not in IGNORED]
