"""The few tools beside training: `python -m mixer_jax COMMAND --help`.

Only the room that has the command is imported: `digest` answers without the planner, and in a moment.
"""

import argparse
import importlib
import sys

from mixer_jax import app, endings

ROOMS = {  # command: the room whose cli.py registers it
    "demo": "report",
    "report": "report",
    "digest": "checkpoints",
    "convert": "checkpoints",
    "weights": "checkpoints",
    "predict": "evaluation",
    "compare": "evaluation",
    "prepare": "preparation",
    "export": "export",
    "plan": "planning",
    "recipe-scale": "planning",
    "bench": "bench",
    "supervise": "supervision",
    "goodput": "supervision",
    "sweep": "sweep",
    "reproduce": "reproduction",
    "launch": "launch",
    "doctor": "launch",
}
# These read train.py and configs/, which are not installed.
NEED_CLONE = ("demo", "plan", "recipe-scale", "bench", "sweep", "reproduce", "launch")


def make_parser(argv: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the command that `argv` begins with; if it names none, that of all commands."""
    parser = argparse.ArgumentParser(prog="python -m mixer_jax", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    named = [command for command in argv[:1] if command in ROOMS]
    for room in dict.fromkeys(ROOMS[command] for command in named or ROOMS):
        importlib.import_module(f"mixer_jax.{room}.cli").add_commands(commands)
    return parser


def main() -> int:
    """Run the command that was typed, and return the exit code."""
    argv = sys.argv[1:]
    if argv and argv[0] in NEED_CLONE and not app.IS_CLONE:
        print(f"error: {argv[0]} needs a clone of the repository: it runs train.py and configs/ there.", file=sys.stderr)
        return endings.TO_MEND
    return app.run_tool(make_parser(argv), argv)


if __name__ == "__main__":
    sys.exit(main())
