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
      data_locations: the file that says where data sets lie, or "".
      flags: further flags of all runs. What they change is a deviation.
    """

    workdir: str = "runs/paper"
    has_runs: bool = False
    start: str = ""
    seeds: int = SEEDS
    data_locations: str = ""
    flags: tuple[str, ...] = ()

    @property
    def locations(self) -> tuple[str, ...]:
        """The flags of all runs that say where data sets lie."""
        return (f"--data-locations={self.data_locations}",) if self.data_locations else ()


WITHOUT_RUNS = Setup()
