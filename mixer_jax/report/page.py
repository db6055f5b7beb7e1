"""A page from any run folders: results of all, curves of each, then pictures and records.

A study with its own story and table, such as the demo, composes the same sections itself.
"""

from collections.abc import Sequence
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.report.document import number, section, table, write_page
from mixer_jax.report.runs import Run, data_text, last_step, read_run, spoken
from mixer_jax.report.sections import (
    pictures_left_out,
    predictions_section,
    records_section,
    run_section,
    training_images_section,
    units_section,
)


def report_runs(workdirs: Sequence[Path], out: Path, *, pictures: bool) -> None:
    """Write the page `out` about the runs in `workdirs`, in their order; with `pictures`, images of the data that they name.

    A run's folder may be somebody else's, and what its config names would be opened: hence only if that is asked for.
    Raises UserError when there is none, or when a folder holds no run. Whatever else is missing, the page says.
    """
    if not workdirs:
        raise UserError("Name at least one run's folder.")
    folders = [Path(workdir).expanduser().absolute() for workdir in workdirs]
    same_names = len({folder.name for folder in folders}) < len(folders)
    runs = [read_run(folder, str(folder) if same_names else "") for folder in folders]
    shown = (training_images_section, predictions_section) if pictures else (pictures_left_out,)
    each = (run_section, *shown, units_section)
    sections = [
        section("Results", _results(runs)),
        *(make(run) for make in each for run in runs),
        records_section(runs),
    ]
    finished = sum(bool(run.starts) and run.results.get("step") == run.starts[-1]["total_steps"] for run in runs)
    lead = f"{len(runs)} run{'s' * (len(runs) > 1)} of mixer_jax, {finished} finished."
    write_page(out, ", ".join(run.label for run in runs), lead, sections)


def _results(runs: list[Run]) -> str:
    """A row a run: what it was trained on, how far, and the last value of every top-1, in percent."""
    evals = [_top1(run) for run in runs]
    columns = list(dict.fromkeys(name for figures in evals for name in figures))
    header = ["run", "trained on", "step", *(f"{spoken(name)} %" for name in columns)]
    rows = [
        [
            run.label,
            data_text(run.config.data),
            number(last_step(run)),
            *("\u2013" if figures.get(name) is None else f"{100 * figures[name]:.1f}" for name in columns),
        ]
        for run, figures in zip(runs, evals, strict=True)
    ]
    return table(
        header,
        rows,
        notes=["Top-1 accuracy of the last evaluation, on the examples of each evaluator\u2019s test split."],
    )


def _top1(run: Run) -> dict[str, float | None]:
    return {
        f"{evaluator}/{figure}": value
        for evaluator, figures in run.results.get("evals", {}).items()
        for figure, value in figures.items()
        if figure.startswith("top1") and not isinstance(value, list)
    }
