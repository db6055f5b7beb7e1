"""Stand-ins for the libraries wandb and mlflow, which keep what they are given as the servers would."""

import threading
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any


class Server:
    """What a tracker knows: its runs by id. `fault` is called before each request, and may raise or wait."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.fault: Callable[[], object] = lambda: None

    def open(self, run_id: str | None, name: str) -> dict[str, Any]:
        self.fault()
        run_id = run_id or f"run-{len(self.runs)}"
        run = self.runs.setdefault(run_id, {"id": run_id, "name": name, "options": {}, "numbers": [], "states": []})
        run["states"].append("running")
        return run

    def log(self, run: dict[str, Any], step: int, values: dict[str, float]) -> None:
        self.fault()
        run["numbers"] += [(name, step, value) for name, value in values.items()]

    def end(self, run: dict[str, Any], state: str) -> None:
        self.fault()
        run["states"].append(state)


def module(name: str, **content: object) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__spec__ = ModuleSpec(name, None, origin="a stand-in")
    vars(made).update(content)
    return made


def wandb_of(server: Server) -> types.ModuleType:
    """Return a stand-in for wandb. Its states: running, 0 or the exit code, and "preempting" before it."""

    class UsageError(Exception):
        pass

    class AuthenticationError(Exception):
        pass

    class Run:
        def __init__(self, run: dict[str, Any]):
            self.id, self._run, self._axes = run["id"], run, {}
            steps = [step for _, step, _ in run["numbers"]]
            self.offline, self.summary = False, {"step": {"max": max(steps)}} if steps else {}

        def define_metric(self, name: str, **options: str) -> None:
            self._axes[name] = options

        def log(self, row: dict[str, float]) -> None:
            assert self._axes == {"step": {"summary": "max"}, "*": {"step_metric": "step"}}
            server.log(self._run, row["step"], {name: value for name, value in row.items() if name != "step"})

        def mark_preempting(self) -> None:
            server.end(self._run, "preempting")

        def finish(self, exit_code: int) -> None:
            server.end(self._run, f"exit {exit_code}")

    def init(*, id, resume, name, dir, config, allow_val_change, settings) -> Run:
        assert resume == ("allow" if id else None) and allow_val_change and settings.console == "off"
        run = server.open(id, name)
        run["options"] |= config
        return Run(run)

    errors = types.SimpleNamespace(UsageError=UsageError, AuthenticationError=AuthenticationError)
    return module("wandb", init=init, Settings=types.SimpleNamespace, errors=errors)


def mlflow_of(server: Server) -> types.ModuleType:
    """Return a stand-in for mlflow. A run is active in one thread, and refuses another value of a parameter."""
    active = threading.local()

    def start_run(run_id: str | None, run_name: str) -> types.SimpleNamespace:
        assert not hasattr(active, "run")
        active.run = server.open(run_id, run_name)
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=active.run["id"]))

    def log_params(options: dict[str, str]) -> None:
        known = active.run["options"]
        assert all(isinstance(value, str) and known.setdefault(name, value) == value for name, value in options.items())

    return module(
        "mlflow",
        start_run=start_run,
        log_params=log_params,
        log_metrics=lambda values, step: server.log(active.run, step, values),
        end_run=lambda status: server.end(active.run, status),
    )
