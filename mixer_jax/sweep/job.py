"""A job: one run of train.py that a sweep or an exhibit of the paper needs, and how far it is, as its folder says."""

import contextlib
import io
import shlex
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ml_collections import ConfigDict

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.launch.follow import DEAD_SECONDS, heartbeats
from mixer_jax.recorded_config import differences, evaluator_differences, usable_config
from mixer_jax.storage import open_storage, read_json_in

DONE, RUNNING, STARTED, NOT_STARTED, OTHER = "done", "running", "started", "not started", "other run"
STATES = {  # {state: what it means}
    DONE: "The run has the figures of its last step.",
    RUNNING: f"The run has given a sign of life within the last {DEAD_SECONDS} s.",
    STARTED: "The run has begun and does not run now. The same command goes on.",
    NOT_STARTED: "The folder has no run.",
    OTHER: "The folder has a run with other options, so this one cannot begin there.",
}


class Job(NamedTuple):
    """A run of train.py.

    Attributes:
      config: FILE.py or FILE.py:ROW.
      flags: the further flags, such as --config.seed=1, without --workdir.
      workdir: the folder of the run, or gs://BUCKET/RUN.
    """

    config: str
    flags: tuple[str, ...]
    workdir: str

    @property
    def words(self) -> list[str]:
        """The program and its arguments."""
        return ["train.py", f"--config={self.config}", f"--workdir={self.workdir}", *self.flags]

    @property
    def command(self) -> str:
        """The command for a shell."""
        return shlex.join(["python", *self.words])


class State(NamedTuple):
    """How far a job is.

    Attributes:
      word: a key of STATES.
      evals: {evaluator: {name: figure}} of results.json. Empty unless the job is done.
      reason: in which options the run differs, for OTHER; otherwise "".
    """

    word: str
    evals: Mapping[str, Mapping[str, float | None]] = MappingProxyType({})
    reason: str = ""


def read_config(config: str, flags: Sequence[str]) -> ConfigDict:
    """Return the config of FILE.py:ROW with these flags. Raises UserError if it cannot be read."""
    with contextlib.redirect_stderr(io.StringIO()):  # It would name each evaluator that a flag adds.
        return app.read_config(config, list(flags))


def config_of(job: Job) -> ConfigDict:
    """Return the config of a job. Raises UserError if it cannot be read."""
    return read_config(job.config, job.flags)


def recorded_config_of(run: str) -> ConfigDict | None:
    """Return the config that a run has recorded, or None if there is none. Raises UserError for a damaged one."""
    storage = open_storage(run)
    if not (content := read_json_in(storage, "config.json")):
        return None
    try:
        return usable_config(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{storage.url}/config.json is not the config of a run: {error}") from error


def steps_of(run: str) -> tuple[int | None, int | None]:
    """Return the step that a run has results of, and its last step. None: there is no record of it."""
    storage = open_storage(run)
    starts = read_json_in(storage, "run.json").get("starts") or [{}]
    return read_json_in(storage, "results.json").get("step"), starts[-1].get("total_steps")


def state_of(job: Job) -> State:
    """Return how far a job is.

    Raises UserError if the config cannot be read, or a file of the run is damaged.
    """
    if not (recorded := recorded_config_of(job.workdir)):
        return State(NOT_STARTED)
    wanted = config_of(job)
    if found := differences(recorded, wanted):
        return State(OTHER, reason=", ".join(f"{name}={then!r} instead of {now!r}" for name, (then, now) in found.items()))
    step, last = steps_of(job.workdir)
    evals = read_json_in(open_storage(job.workdir), "results.json").get("evals", {})
    is_at_end = recorded.total == wanted.total and step is not None and step == last
    if is_at_end and all(name in evals and _evaluates_alike(recorded, wanted, name) for name in wanted.evals):
        return State(DONE, evals)
    is_alive = any(time.time() - beat["time"] < DEAD_SECONDS for beat in heartbeats(job.workdir))
    return State(RUNNING if is_alive else STARTED)


def _evaluates_alike(recorded: ConfigDict, wanted: ConfigDict, name: str) -> bool:
    """Return whether the figures of an evaluator of a run are those that are wanted, and not those of other data, for example."""
    return name in recorded.evals and not evaluator_differences(recorded.evals[name], wanted.evals[name])
