"""Made-up histories of runs: rows of goodput.jsonl, as a run with several starts writes them."""

import json
import random
from pathlib import Path

PHASES = ("initialization", "restore", "compile", "data", "checkpoint", "evaluation", "stalled")
BEGAN = 1_764_589_000.125


def rows_of(start: int, began: float, first_step: int, last_step: int, ending: str = "running", **phases: float) -> list[dict]:
    """Return the rows of a start with these seconds by phase."""
    ended = round(began + sum(phases.values()), 3)
    of_start = {"began": began, "ended": ended, "first_step": first_step, "last_step": last_step, "ending": ending}
    return [{"start": start, "phase": phase, "seconds": seconds} | of_start for phase, seconds in phases.items()]


def text_of(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_record(folder: Path, rows: list[dict]) -> Path:
    """Write the rows as the record of a run in the folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "goodput.jsonl").write_bytes(text_of(rows))
    return folder


THREE_STARTS = [  # a kill, a stall after an older checkpoint, the end
    *rows_of(0, BEGAN, 0, 4000, initialization=18.4, compile=95.2, training=3000.5, data=60.2, checkpoint=40.25, evaluation=120),
    *rows_of(
        1, BEGAN + 3500, 3500, 4700, "stalled", initialization=17.1, restore=22.3, compile=12.2, training=900.5, stalled=640.0
    ),
    *rows_of(2, BEGAN + 5400, 4500, 8000, "done", initialization=17.6, restore=21.9, training=2500.5, evaluation=150.1),
]


def random_history(seed: int) -> tuple[list[dict], list[int]]:
    """Return the rows of a run with random starts, and the number of steps of each that are in the state that the last one left.

    The history is played: each start resumes from a random step that is behind it, also an older one, or does nothing. The clock
    may be set back between two starts.
    """
    draw = random.Random(seed)
    rows, clock, history = [], BEGAN, []  # history[s] is the start that did step s + 1
    count = draw.randint(1, 9)
    for start in range(count):
        resumed = draw.randint(0, len(history))
        done = draw.choice([0, 1, draw.randint(2, 50)])
        phases = {phase: round(draw.expovariate(1 / 40), 3) for phase in draw.sample(PHASES, draw.randint(1, 7))}
        if done:
            phases["training"] = round(done * draw.uniform(0.05, 3.0), 3)
            history[resumed:] = [start] * done
        ending = draw.choice(["running", "stopped", "failed", "stalled"] if start < count - 1 else ["running", "done"])
        rows += rows_of(start, round(clock, 3), resumed, resumed + done, ending, **phases)
        clock = rows[-1]["ended"] + draw.choice([0.0, draw.uniform(0, 900), draw.uniform(-900, 0)])
    return rows, [history.count(start) for start in range(count)]
