"""When a host of a run is killed or frozen, and can tell nobody, all others end soon. A frozen host that wakes up ends too."""

import os
import signal
from pathlib import Path

import pytest
from programs import start_two, wait_for

from mixer_jax.checkpoints.committed_steps import committed_steps
from mixer_jax.endings import TRY_AGAIN

# train.py, whose hosts miss one that gives no sign of life for five seconds.
QUICK = """import sys; sys.path[:0] = [""]; sys.argv[0] = "train.py"
import train
from mixer_jax import app
from mixer_jax.hosts import joining
joining.HEARTBEAT_SECONDS = 5
app.run(train.main, train.join, workdir="")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("host", [0, 1])
def test_the_others_end_when_a_host_is_lost(tmp_path: Path, number: signal.Signals, host: int):
    processes = start_two(f"--workdir={tmp_path}", "--config.total.steps=100000", programs=(QUICK, QUICK))
    wait_for(lambda: bool(committed_steps(str(tmp_path))), processes[0])
    processes[host].send_signal(number)
    said = processes[1 - host].communicate(timeout=60)[0]
    assert processes[1 - host].returncode in (TRY_AGAIN, -signal.SIGABRT), said  # JAX's own end is an abort.
    begun = {name.split(".")[0] for name in os.listdir(tmp_path / "checkpoints")}
    processes[host].send_signal(signal.SIGCONT)
    processes[host].communicate(timeout=60)
    assert processes[host].returncode in (TRY_AGAIN, -signal.SIGABRT, -signal.SIGKILL)
    assert {str(step) for step in committed_steps(str(tmp_path))} <= begun  # Nothing that all had not written before.
