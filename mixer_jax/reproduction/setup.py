"""How the user wants the runs of an exhibit: where they lie, what they start from, how many there are, with which options."""

import dataclasses

SEEDS = 3  # of each fine-tuning of the paper
RELEASED, SCRATCH = "released", "scratch"


@dataclasses.dataclass(frozen=True)
class Setup:
    """How the runs are made.

    Attributes:
      workdir: the folder of all runs, or gs://BUCKET/FOLDER.
      has_runs: whether the runs that are there are read. If not, it is as if there were none.
      start: RELEASED: from the authors' weights; SCRATCH: from pre-trainings of our own; "": from the authors' weights where
        there are such.
      seeds: the number of runs with the chosen learning rate.
      locations: flags that say where data sets lie.
      flags: further flags of all runs. What they change is a deviation.
    """

    workdir: str = "runs/paper"
    has_runs: bool = False
    start: str = ""
    seeds: int = SEEDS
    locations: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


WITHOUT_RUNS = Setup()
