"""The status words of a cell, and what belongs to a status."""

import dataclasses

from mixer_jax.reproduction.costs import Cost
from mixer_jax.reproduction.evidence import Evidence

REPRODUCED, DIFFERS, DEVIATES, SAME, ESTIMATE = "reproduced", "differs", "deviates", "same", "estimate"
NOT_STARTED, STARTED, NO_DATA, NO_RECIPE, CITED, NOT_BUILT = (
    "not started", "started", "no data", "no recipe", "cited", "not built",
)  # fmt: skip
STATUSES = {  # {status: what it means}; the docs have this table
    REPRODUCED: "Our figure is within the tolerance of the paper's, and no deviation is known.",
    DIFFERS: "Our figure is further from the paper's than the tolerance, and no deviation is known.",
    DEVIATES: "We have a figure, but its runs deviate from the paper's protocol, so it is not called reproduced.",
    SAME: "A size or an option: what our code has is what the paper says.",
    ESTIMATE: "Ours is an estimate of the TPU compiler and was not measured.",
    NOT_STARTED: "The recipe is there and its data can be had, but there are no finished runs.",
    STARTED: "There are runs, finished ones or one that goes on, but they give no figure.",
    NO_DATA: "The recipe is there, but its pre-training data are not public.",
    NO_RECIPE: "No paper states the whole recipe, or a part of it is missing here.",
    CITED: "The paper cites the figure and ran nothing, and the model is none of ours.",
    NOT_BUILT: "This version has no command or record that gives it.",
}


@dataclasses.dataclass(frozen=True)
class Standing:
    """What stands in a cell today.

    Attributes:
      status: a key of STATUSES.
      ours: our figure or text, or None.
      num_runs: the number of finished runs behind it.
      cost: what is left to run of the paper's protocol for this cell, without the pre-training of the row, which its core_days
        cell has. None: it is not known, or the cell needs no run.
      deviations: how our figure, or the recipe for it, differs from what the paper states.
      reasons: why the cell stands so, and how to get what it needs.
      commands: the commands that make its runs.
      runs: the finished runs behind our figure, if it comes from runs.
    """

    status: str
    ours: float | str | None = None
    num_runs: int = 0
    cost: Cost | None = None
    deviations: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    runs: tuple[Evidence, ...] = ()
