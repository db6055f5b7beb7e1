"""Works through the runs of an exhibit's cells: finds those that can be made, and makes one after the other, each once.

A cell needs a pre-training, unless it starts from the authors' weights, and then the sweep of each of its data sets. A 5-shot
accuracy of Figures 2 and 4 needs the pre-training alone. Cells share runs: the runs of ImageNet are a part of the mean of five,
and one pre-training serves a whole row.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from mixer_jax.data.sources.registry import open_source
from mixer_jax.data_locations import datasets
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.reproduction import costs
from mixer_jax.reproduction.exhibit import ACCURACY, Column, Row
from mixer_jax.reproduction.few_shot import FewShotCell, few_shot_cell
from mixer_jax.reproduction.fine_tuning import TASKS, pretraining_job
from mixer_jax.reproduction.recipes import pretraining
from mixer_jax.reproduction.setup import Setup
from mixer_jax.reproduction.show import choose, label
from mixer_jax.reproduction.standing import fine_tunings_of, why_not_run
from mixer_jax.sweep import stages
from mixer_jax.sweep.grid import Sweep, choosing_jobs
from mixer_jax.sweep.job import DONE, Job, config_of, read_config, state_of


class Task(NamedTuple):
    """A cell whose runs are not all done.

    Attributes:
      label: the row and the column, such as "ImageNet: Mixer-B/16, 224 pixels, 300 epochs, column avg5".
      pretraining: the pre-training that its runs start from, or that has its figure, if that is not done; otherwise None.
      sweeps: the sweeps of its data sets that are not done.
      core_days: {folder of the pre-training or of a sweep: the estimated TPU-v3 core-days that are left of it}.
    """

    label: str
    pretraining: Job | None
    sweeps: tuple[Sweep, ...]
    core_days: Mapping[str, float]


class Plan(NamedTuple):
    """What can be run of an exhibit, the cheapest first, and why the rest cannot: (label of the cell, reason)."""

    tasks: Sequence[Task]
    left: Sequence[tuple[str, str]]


def make_plan(name: str, rows: str, columns: Sequence[str], setup: Setup, budget: float | None = None) -> Plan:
    """Return what can be run of an exhibit's cells.

    A cell is left out if it has no recipe, if its data cannot be opened here, if no images can be held out of them, or if it does
    not fit into the budget beside cheaper ones.

    Args:
      name: The exhibit.
      rows: A pattern for rows, as for `show.choose`.
      columns: The names of columns. Empty: all.
      setup: How the runs are made.
      budget: The most TPU-v3 core-days that all of it may cost, by the estimates. None: any.

    Raises:
      UserError: There is no such row or column, or the record of a run is damaged.
    """
    tasks, left, data = [], [], _Data()
    for cell_label, row, column in _cells(name, rows, columns):
        if reason := why_not_run(row, column, setup)[1] or _why_not_held_out(name, row, column, setup):
            left.append((cell_label, reason))
            continue
        task = _task(cell_label, name, row, column, setup)
        if not task:
            continue
        if reason := data.fault(task):
            left.append((cell_label, reason))
        else:
            tasks.append(task)
    tasks.sort(key=lambda task: sum(task.core_days.values()))
    chosen, too_dear = _within(tasks, budget)
    return Plan(chosen, [*left, *too_dear])


def next_jobs(plan: Plan) -> list[Job]:
    """Return the runs that can start now, in the order of the plan: each once."""
    jobs: dict[str, Job] = {}
    for task in plan.tasks:
        found = [task.pretraining] if task.pretraining else []
        for sweep in () if found else task.sweeps:
            found += stages.progress_of(sweep).startable()
        jobs |= {job.workdir: job for job in found if job}
    return list(jobs.values())


def work(plan: Plan, run_job: Callable[[Job], None] = stages.run_job) -> None:
    """Make all runs of a plan, one after the other. `run_job` runs one.

    Raises what `stages.run` raises. The same plan then goes on where it was.
    """
    for number, task in enumerate(plan.tasks, 1):
        days = sum(task.core_days.values())
        cost = f"{days:.3g} core-days of TPU v3 by the estimate" if math.isfinite(days) else "its cost is not known"
        print(f"[{number} of {len(plan.tasks)}] {task.label}: {cost}", file=sys.stderr, flush=True)
        if task.pretraining and state_of(task.pretraining).word != DONE:
            run_job(task.pretraining)
        for sweep in task.sweeps:
            stages.run(sweep, run_job)


def _cells(name: str, rows: str, columns: Sequence[str]) -> Iterator[tuple[str, Row, Column]]:
    """Yield the chosen cells that are accuracies, those of ReaL first: their runs serve ImageNet too."""
    found = [
        (f"{row.group}: {label(row, exhibit)}, column {column.name}", row, column)
        for exhibit, chosen in choose(name, rows, columns)
        for row, shown in chosen
        for column in shown
        if column.kind == ACCURACY
    ]
    yield from sorted(found, key=lambda cell: cell[2].name != "real")


def _why_not_held_out(name: str, row: Row, column: Column, setup: Setup) -> str:
    """Return why no images can be held out of the data of a cell to choose the learning rate by, or ""."""
    if column.name not in TASKS:
        return ""  # Its recipe is fixed.
    try:
        for fine_tuning in fine_tunings_of(name, row, column):
            choosing_jobs(fine_tuning.sweep(pretraining(row), setup))
    except UserError as error:
        return str(error)
    return ""


def _task(cell_label: str, name: str, row: Row, column: Column, setup: Setup) -> Task | None:
    """Return the task of a cell, or None if all its runs are done."""
    if column.name not in TASKS:
        return _few_shot_task(cell_label, few_shot_cell(name, row, column.name), setup)
    recipe = pretraining(row)
    core_days: dict[str, float] = {}
    sweeps = []
    for fine_tuning in fine_tunings_of(name, row, column):
        sweep = fine_tuning.sweep(recipe, setup)
        missing = _missing(sweep)
        if missing:
            cost = costs.fine_tuning_cost(row, recipe, fine_tuning)
            core_days[sweep.workdir] = missing * _days(cost)
            sweeps.append(sweep)
    if not sweeps:
        return None
    own = pretraining_job(recipe, setup) if recipe.weights(setup) == recipe.own_weights(setup) else None
    if own and state_of(own).word == DONE:
        own = None
    if own:
        core_days[own.workdir] = _days(costs.pretraining_cost(row, recipe))
    return Task(cell_label, own, tuple(sweeps), core_days)


def _few_shot_task(cell_label: str, cell: FewShotCell, setup: Setup) -> Task | None:
    job = pretraining_job(cell.recipe, setup)
    if state_of(job).word == DONE:
        return None
    return Task(cell_label, job, (), {job.workdir: _days(costs.pretraining_cost(cell.model, cell.whole))})


def _days(cost: costs.Cost | None) -> float:
    """Return the core-days of a cost. One that is not known fits into no budget."""
    return cost.core_days if cost else math.inf


def _missing(sweep: Sweep) -> int:
    """Return the number of runs of a sweep that are not done, also of those that follow the choice."""
    progress = stages.progress_of(sweep)
    states = [state.word for _, state in progress.jobs()]
    following = len(sweep.seeds) if progress.best is None else 0
    return sum(word != DONE for word in states) + following


def _within(tasks: Sequence[Task], budget: float | None) -> tuple[list[Task], list[tuple[str, str]]]:
    """Return the tasks that fit into the budget, the cheapest first, and the others with the reason. Shared runs count once."""
    if budget is None:
        return list(tasks), []
    chosen, left, paid = [], [], {}
    for task in tasks:
        together = paid | task.core_days
        if sum(together.values()) <= budget:
            chosen.append(task)
            paid = together
        else:
            more = sum(together.values()) - sum(paid.values())
            costs_more = f"It costs {more:.3g} core-days more" if math.isfinite(more) else "Its cost is not known"
            left.append((task.label, f"{costs_more}, and the budget is {budget:g}."))
    return chosen, left


class _Data:
    """What is wrong with the data of configs. Each data set is opened once."""

    def __init__(self) -> None:
        self._faults: dict[str, str] = {}

    def fault(self, task: Task) -> str:
        """Return why a task cannot open its data here, or ""."""
        configs = [config_of(task.pretraining)] if task.pretraining else []
        configs += [read_config(sweep.config, sweep.flags) for sweep in task.sweeps]
        return next((fault for config in configs for fault in self._of_config(config) if fault), "")

    def _of_config(self, config: ConfigDict) -> Iterator[str]:
        for _, data in datasets(config):
            key = data.to_json_best_effort()
            if key not in self._faults:
                self._faults[key] = _fault_of(data)
            yield self._faults[key]


def _fault_of(data: ConfigDict) -> str:
    try:
        open_source(data)
    except (UserError, EnvironmentFault, OSError) as error:
        return f"{data.source}: {error}"
    return ""
