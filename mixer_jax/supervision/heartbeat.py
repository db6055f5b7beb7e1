"""The sign of life of each host: WORKDIR/hosts/HOST.json, written every few seconds by a thread of the process.

    {"host": 0, "machine": "t1v-...", "pid": 123, "phase": "training", "step": 40, "step_time": 1764589090.1,
     "time": 1764589100.5}

`step` is the last step that is done, and `step_time` when that was, or null before a step is known; both times are seconds since
1970. If `time` is old, the host has no process any more, or one that cannot run. If only `step_time` is old, it has a process in
which no step goes on.
"""

import os
import platform
import time
from typing import Any

from mixer_jax.stopwatch import Reading


def heartbeat_name(host: int) -> str:
    """Return the name of the file of a host in the run's folder."""
    return f"hosts/{host}.json"


def heartbeat(host: int, reading: Reading) -> dict[str, Any]:
    """Return the content of the file of this host now."""
    now = time.time()
    step_time = None if reading.step_time is None else round(now - (time.monotonic() - reading.step_time), 3)
    return {
        "host": host,
        "machine": platform.node(),
        "pid": os.getpid(),
        "phase": reading.phase,
        "step": reading.step,
        "step_time": step_time,
        "time": round(now, 3),
    }
