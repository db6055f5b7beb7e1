"""Small programs, without JAX, for tests of `supervise`. They are files of Python, and run in a moment."""

import sys
from pathlib import Path

# It ends as the next line of WORKDIR/plan says: "CODE STEP ...", where it first makes checkpoints of these steps. -N is signal N.
PLANNED = """
import os, pathlib, sys, time
workdir = pathlib.Path(sys.argv[-1].removeprefix("--workdir="))
first, *rest = (workdir / "plan").read_text().splitlines()
(workdir / "plan").write_text("".join(line + chr(10) for line in rest))
code, *steps = map(int, first.split())
for step in steps:
    (workdir / "checkpoints" / str(step)).mkdir(parents=True)
print(f"ending with {code}")
if code < 0:
    os.kill(os.getpid(), -code)
    time.sleep(10)
sys.exit(code)
"""
# It prints "ready", counts the signals of HEARD in WORKDIR/heard, and ends with 75 after so many as its first argument says.
HEARING = """
import os, pathlib, signal, sys, time
workdir, needed = pathlib.Path(sys.argv[-1].removeprefix("--workdir=")), int(sys.argv[1])
heard = []
def hear(number, frame):
    heard.append(number)
    (workdir / "heard").write_text(" ".join(map(str, heard)))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, hear)
print("ready", os.getpid())
while len(heard) < needed:
    time.sleep(0.01)
time.sleep(0.2)  # Another signal would still be counted.
sys.exit(75)
"""


def write_program(folder: Path, text: str) -> str:
    """Write a program into a folder, and return its path."""
    file = folder / "program.py"
    file.write_text(text)
    return str(file)


def supervise(*words: str, options: tuple[str, ...] = ()) -> list[str]:
    """Return the command that supervises these words with short pauses."""
    return [sys.executable, "-m", "mixer_jax", "supervise", "--max-pause=0.01", *options, "--", *words]
