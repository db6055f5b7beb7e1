"""A job: one run of train.py that a sweep or an exhibit of the paper needs, and how far it is, as its folder says."""

import contextlib
import io
import shlex
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ml_collections import ConfigDict

from mixer_jax import app
from mixer_jax.errors import UserError
from mixer_jax.launch.follow import DEAD_SECONDS, heartbeats
from mixer_jax.recorded_config import differences, usable_config
from mixer_jax.storage import MAX_JSON_BYTES, Storage, open_storage, parse_json

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


def config_of(job: Job) -> ConfigDict:
    """Return the config of a job. Raises UserError if it cannot be read."""
    with contextlib.redirect_stderr(io.StringIO()):  # It would name each evaluator that a flag adds.
        return app.read_config(job.config, list(job.flags))


def state_of(job: Job) -> State:
    """Return how far a job is.

    Raises UserError if the config cannot be read, or a file of the run is damaged.
    """
    storage = open_storage(job.workdir)
    if not (content := _read(storage, "config.json")):
        return State(NOT_STARTED)
    wanted = config_of(job)
    try:
        recorded = usable_config(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{storage.url}/config.json is no config of a run, or a damaged one: {error}") from error
    if found := differences(recorded, wanted):
        return State(OTHER, reason=", ".join(f"{name}={then!r} instead of {now!r}" for name, (then, now) in found.items()))
    results, starts = _read(storage, "results.json"), _read(storage, "run.json").get("starts") or [{}]
    is_at_end = recorded.total == wanted.total and results.get("step") == starts[-1].get("total_steps")
    evals = results.get("evals", {})
    if is_at_end and set(wanted.evals) <= set(evals):
        return State(DONE, evals)
    is_alive = any(time.time() - beat["time"] < DEAD_SECONDS for beat in heartbeats(job.workdir))
    return State(RUNNING if is_alive else STARTED)


def _read(storage: Storage, name: str) -> dict:
    text = storage.read_whole(name, MAX_JSON_BYTES)
    return parse_json(text, f"{storage.url}/{name}") if text else {}
