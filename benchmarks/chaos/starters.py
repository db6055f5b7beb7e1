"""Many processes that start a run in one place at the same moment: one of them gets it."""

from subprocess import PIPE, Popen

from programs import start_python
from stand_ins.cloud_storage import CloudStorage

from benchmarks.chaos.trials import Broken, Numbers, Trials

STARTER = """
import sys
from mixer_jax.errors import EnvironmentFault
from mixer_jax.workdir import Workdir
assert "jax" not in sys.modules  # It would make 64 starters too many for a small machine.
print("answer: ready", flush=True)
sys.stdin.readline()
try:
    run = Workdir(sys.argv[1])
    print("answer: won", flush=True)
    sys.stdin.readline()
    run.check_owner()
except EnvironmentFault as error:
    print("answer:", "refused" if "is in use by " in str(error) else error, flush=True)
    sys.stdin.readline()
"""
ANSWER = "answer: "


def start_on_disk(trials: Trials) -> Numbers:
    """Start many in a folder."""
    return _start(trials, str(trials.folder / "run"), {})


def start_in_bucket(trials: Trials) -> Numbers:
    """Start many in a bucket."""
    with CloudStorage() as cloud:
        return _start(trials, "gs://bucket/run", cloud.environment())


def _start(trials: Trials, workdir: str, variables: dict[str, str]) -> Numbers:
    """Let so many processes take the folder at once, and raise Broken unless one has it and each other is refused."""
    command, environment = ["-c", STARTER, workdir], trials.variables | variables
    starters = [trials.started(start_python(command, 1, PIPE, **environment)) for _ in range(trials.count)]
    said = list(map(_read_answer, starters))
    if set(said) != {"ready"}:
        raise Broken(f"not all came up: {sorted(set(said))}")
    for starter in starters:
        starter.stdin.write("\n")
        starter.stdin.flush()
    said = list(map(_read_answer, starters))
    for starter in starters:
        starter.communicate("\n", timeout=60)
    codes = {starter.returncode for starter in starters}
    if sorted(said) != ["refused"] * (trials.count - 1) + ["won"] or codes != {0}:
        raise Broken(f"they said {sorted(said)}, and ended with exit codes {codes}")
    return {"winners": said.count("won")}


def _read_answer(starter: Popen) -> str:
    """Return the next answer. What libraries log, and that a starter waits for the lease, is passed over."""
    return next((line.removeprefix(ANSWER) for line in starter.stdout if line.startswith(ANSWER)), "").strip()
