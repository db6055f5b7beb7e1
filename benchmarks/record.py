"""Measures the figures that docs/ shows on this machine: `python -m benchmarks.record`, or with the names of some records.

A record has the figures that a few commands print as JSON, beside the commands, the machine, the date, the versions and the
commit. It is kept in recorded/NAME.json. `python -m benchmarks.pages` makes the tables of docs/ from the records.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.peers.process import ROOT
from mixer_jax import app
from mixer_jax.errors import EnvironmentFault, UserError
from mixer_jax.hosts.software import git_commit, versions

RECORDED = Path(__file__).parent / "recorded"
RUNS = "runs/recorded"  # The folder of the runs that commands make. It is emptied first, so that no earlier run is used.
B16 = "--config=configs/pretrain_imagenet.py:B/16"


def _beside_timm(kind: str, variant: str, batch_size: int, steps: int) -> str:
    model = f"{B16} --config.model.variant={variant} --config.model.dtype=float32 --config.batch_size={batch_size}"
    return f"benchmarks.beside_timm {kind} {model} --steps={steps}"


COMMANDS: dict[str, dict[str, str]] = {
    "demo": {
        "demo": f"benchmarks.demo --workdir={RUNS}/demo",
        "surgery": f"benchmarks.surgery --run={RUNS}/demo/full --workdir={RUNS}/surgery",
    },
    "timm": {
        "S/32 trains": _beside_timm("step", "S/32", 32, 3),
        "S/16 trains": _beside_timm("step", "S/16", 16, 3),
        "S/32 predicts": _beside_timm("predict", "S/32", 32, 10),
        "S/16 predicts": _beside_timm("predict", "S/16", 16, 10),
    },
    "input": {
        "processes": f"benchmarks.beside_big_vision .bench/big_vision {B16} --source=photographs",
        "threads": f"mixer_jax bench input {B16} --source=photographs --config.loader.processes=False",
    },
    "bucket_input": {"30 ms": "benchmarks.bucket_input --latency=30"},
    "memory": {str(count): f"benchmarks.memory --records {count}" for count in (4096, 14_197_122, 300_000_000)},
    "startup": {"the demo's model": "benchmarks.startup demo", "B/16": "benchmarks.startup B/16"},
    "near_duplicates": {"scikit-learn's photographs": "benchmarks.near_duplicates"},
    "chaos": {"all": "benchmarks.chaos"},
}
"""The arguments of `python -m`, by the name of the record and the label of the command."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"records to make: {', '.join(COMMANDS)}")
    parser.set_defaults(tool=record_all)
    return parser


def record_all(arguments: argparse.Namespace) -> None:
    """Make the records that are named, or all of them.

    Raises UserError for an unknown name, and EnvironmentFault if a command fails.
    """
    if unknown := set(arguments.names) - COMMANDS.keys():
        raise UserError(f"No such record: {', '.join(sorted(unknown))}. There are {', '.join(COMMANDS)}.")
    machine = machine_facts()
    for name in arguments.names or COMMANDS:
        record(name, machine)


def record(name: str, machine: dict) -> None:
    """Run the commands of a record one after the other, and write it when all of them have ended."""
    shutil.rmtree(ROOT / RUNS, ignore_errors=True)
    start = time.monotonic()
    runs = {label: _run(command) for label, command in COMMANDS[name].items()}
    facts = machine | {"minutes": round((time.monotonic() - start) / 60, 1)}
    (RECORDED / f"{name}.json").write_text(json.dumps(facts | {"runs": runs}, indent=1, ensure_ascii=False) + "\n")


def _run(command: str) -> dict:
    print(f"\n$ python -m {command}", file=sys.stderr, flush=True)
    run = subprocess.run(
        [sys.executable, "-m", *shlex.split(command), "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if run.returncode:
        print(run.stdout, file=sys.stderr)  # What was measured before it failed may have taken an hour.
        raise EnvironmentFault(f"`python -m {command}` ended with exit code {run.returncode}. Its message is above.")
    return {"command": f"python -m {command}", "figures": json.loads(run.stdout.splitlines()[-1])}


def machine_facts() -> dict:
    """Return what identifies this machine and this code, and the load of the machine before anything is measured."""
    file = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in file.read_text().splitlines()] if file.exists() else []
    processor = {name.strip(): value.strip() for name, _, value in lines}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": git_commit(),
        "cpu": processor.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "avx512": "avx512f" in processor.get("flags", "").split(),
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": versions(),
    }


def read(name: str) -> dict:
    """Return the record that `record` has written."""
    return json.loads((RECORDED / f"{name}.json").read_text())


if __name__ == "__main__":
    sys.exit(app.run_tool(make_parser()))
