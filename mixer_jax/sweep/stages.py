"""How far a sweep is, and the way through it: which of its runs are done, which setting is the best, and what comes next."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mixer_jax import endings
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.supervision.program import read_program
from mixer_jax.supervision.restarts import Limits
from mixer_jax.sweep.grid import Setting, Sweep, best_of, choosing_jobs, final_jobs
from mixer_jax.sweep.job import DONE, NOT_STARTED, OTHER, STARTED, Job, State, state_of


class Progress(NamedTuple):
    """How far a sweep is.

    Attributes:
      choosing: the jobs of the first stage with their states, by setting.
      best: the setting that is chosen, or None while a job of the first stage is not done.
      final: the jobs of the second stage with their states. Empty while nothing is chosen, and if nothing is held out.
    """

    choosing: Mapping[Setting, Sequence[tuple[Job, State]]]
    best: Setting | None
    final: Sequence[tuple[Job, State]]

    def jobs(self) -> list[tuple[Job, State]]:
        """Return all jobs that are known so far, with their states."""
        return [*(pair for pairs in self.choosing.values() for pair in pairs), *self.final]

    def startable(self) -> list[Job]:
        """Return the jobs that can start now."""
        return [job for job, state in self.jobs() if state.word in (NOT_STARTED, STARTED)]


def progress_of(sweep: Sweep) -> Progress:
    """Return how far a sweep is.

    Raises UserError if the config cannot be read, a file of a run is damaged, or all runs have diverged.
    """
    choosing = {setting: [(job, state_of(job)) for job in jobs] for setting, jobs in choosing_jobs(sweep).items()}
    if any(state.word != DONE for pairs in choosing.values() for _, state in pairs):
        return Progress(choosing, None, [])
    figures = {setting: deciding_figures(sweep, pairs) for setting, pairs in choosing.items()}
    best = best_of(sweep, figures) if any(figures.values()) else next(iter(figures))
    return Progress(choosing, best, [(job, state_of(job)) for job in final_jobs(sweep, best)])


def deciding_figures(sweep: Sweep, pairs: Sequence[tuple[Job, State]]) -> list[float | None]:
    """Return the figure that decides of each job that is done.

    Raises UserError if the evaluator has no such figure.
    """
    return [_figure(sweep, state) for _, state in pairs if state.word == DONE]


def _figure(sweep: Sweep, state: State) -> float | None:
    figures = state.evals[sweep.evaluator]
    if sweep.metric not in figures:
        raise UserError(f"{sweep.evaluator} has no figure {sweep.metric!r}: it has {', '.join(figures)}.")
    return figures[sweep.metric]


def run(sweep: Sweep, start: Callable[[Job], None] | None = None) -> Progress:
    """Run what is missing of a sweep, one run after the other, and return its progress, which is then complete.

    Args:
      sweep: The sweep.
      start: Runs a job to its end. By default, this is `run_job`.

    Raises:
      UserError: A run cannot be made: an option or the data are wrong, or its folder has another run.
      EnvironmentFault: A run has ended too early, and so have its restarts.
      SystemExit: The user has asked to stop. The runs go on with the same command.
    """
    start = start or run_job
    for job in _missing(progress_of(sweep).jobs()):
        start(job)
    for job in _missing(progress_of(sweep).final):  # They are known now.
        start(job)
    return progress_of(sweep)


def _missing(pairs: Sequence[tuple[Job, State]]) -> list[Job]:
    """Return the jobs that are not done. Raises UserError if the folder of one has another run."""
    for job, state in pairs:
        if state.word == OTHER:
            raise UserError(f"{job.workdir} has a run with other options ({state.reason}): move it away, or name another folder.")
    return [job for job, state in pairs if state.word != DONE]


def run_job(job: Job) -> None:
    """Run a job to its end, under a supervisor, which starts it again if it ends too early.

    Raises UserError and EnvironmentFault if it cannot be run to its end, and SystemExit if the user has asked to stop.
    """
    from mixer_jax.supervision.log import Log  # These import what opens buckets, which other tools do without.
    from mixer_jax.supervision.supervise import Supervisor

    print(job.command, file=sys.stderr, flush=True)
    program = read_program(job.words)
    log = Log(program.workdir, program.log_name)
    try:
        code = Supervisor(program, log, Limits()).run()
    finally:
        log.close()
    if code in (endings.STOPPED, endings.INTERRUPTED):
        sys.exit(code)
    if code == endings.TO_MEND:
        raise UserError(f"{job.workdir} cannot be run: see its message above.")
    if code != endings.DONE:
        raise EnvironmentFault(f"{job.workdir} has ended with {code}: see its logs/.")
    if (state := state_of(job)).word != DONE:
        raise EnvironmentFault(f"{job.workdir} has ended, and is {state.word}: its results.json lacks figures of the last step.")
