"""Shows a sweep: its settings with the figures that decide, and the runs that are left."""

import statistics
from collections.abc import Sequence
from typing import Any

from mixer_jax.sweep.grid import Sweep, is_loss
from mixer_jax.sweep.job import DONE, STATES, Job, State
from mixer_jax.sweep.stages import Progress, deciding_figures
from mixer_jax.text_table import format_table


def figures_of(sweep: Sweep, progress: Progress) -> dict[str, Any]:
    """Return how far a sweep is, for `format_sweep` and for programs."""
    settings = [
        {
            "setting": dict(setting),
            "chosen": setting == progress.best,
            "figures": (found := deciding_figures(sweep, pairs)),
            **_spread(found),
            "runs": [_run(job, state) for job, state in pairs],
        }
        for setting, pairs in progress.choosing.items()
    ]
    return {
        "select": f"evals.{sweep.evaluator}.{sweep.metric}",
        "hold_out": list(sweep.hold_out) if sweep.hold_out else None,
        "settings": settings,
        "best": dict(progress.best) if progress.best is not None else None,
        "final": {"runs": [_run(job, state) for job, state in progress.final], "evals": final_figures(progress.final)},
    }


def final_figures(pairs: Sequence[tuple[Job, State]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {evaluator: {figure: {"figures", "mean", "sd"}}} of the runs that are done."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    done = [state.evals for _, state in pairs if state.word == DONE]
    for evaluator in done[0] if done else ():
        for name in done[0][evaluator]:
            values = [evals.get(evaluator, {}).get(name) for evals in done]
            found.setdefault(evaluator, {})[name] = {"figures": values, **_spread(values)}
    return found


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Return the mean and the sample standard deviation, as far as there are figures. None stands for NaN."""
    figures = [value for value in values if value is not None]
    is_whole = len(figures) == len(values)
    return {
        "mean": statistics.fmean(figures) if is_whole and figures else None,
        "sd": statistics.stdev(figures) if is_whole and len(figures) > 1 else None,
    }


def _run(job: Job, state: State) -> dict[str, Any]:
    return {"workdir": job.workdir, "state": state.word, "reason": state.reason, "command": job.command}


def format_sweep(figures: dict[str, Any]) -> str:
    """Return what `figures_of` returned as text for people."""
    runs = [run for part in (*figures["settings"], figures["final"]) for run in part["runs"]]
    parts = [_format_choice(figures), _format_final(figures), _format_runs(runs)]
    return "\n\n".join(filter(None, parts))


def _format_choice(figures: dict[str, Any]) -> str:
    best = "lowest" if is_loss(figures["select"]) else "highest"
    said = f"The {best} mean of {figures['select']} decides."
    if figures["hold_out"]:
        said += f" These runs are trained on {figures['hold_out'][0]} and evaluated on {figures['hold_out'][1]}."
    rows: list[list[Any]] = [[*figures["settings"][0]["setting"], "runs done", "mean", "sd", ""]]
    for setting in figures["settings"]:
        done = f"{len(setting['figures'])} of {len(setting['runs'])}"
        rows.append([*setting["setting"].values(), done, *_texts(setting), "chosen" if setting["chosen"] else ""])
    return f"{said}\n\n{format_table(rows, '>')}"


def _format_final(figures: dict[str, Any]) -> str:
    final = figures["final"]
    if not final["runs"]:
        return (
            "The runs on all training images follow when a setting is chosen."
            if figures["hold_out"] and not figures["best"]
            else ""
        )
    done = sum(run["state"] == DONE for run in final["runs"])
    said = f"Trained on all training images with the chosen setting: {done} of {len(final['runs'])} runs are done."
    rows = [
        [f"{evaluator} {name}", *_texts(values)]
        for evaluator, by_name in final["evals"].items()
        for name, values in by_name.items()
        if name != "examples"
    ]
    return f"{said}\n\n{format_table([['', 'mean', 'sd'], *rows])}" if rows else said


def _format_runs(runs: Sequence[dict[str, Any]]) -> str:
    left = [[run["state"], run["workdir"], run["reason"]] for run in runs if run["state"] != DONE]
    if not left:
        return ""
    words = dict.fromkeys(row[0] for row in left)
    return f"{format_table(left, '<')}\n\n{format_table([[word, STATES[word]] for word in words], '<')}"


def _texts(values: dict[str, Any]) -> list[str]:
    return ["" if values[name] is None else f"{values[name]:.4g}" for name in ("mean", "sd")]
