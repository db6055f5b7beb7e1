"""The page about any runs: a table of their results, the curves of each, then pictures and records.

A study that needs another order or table, such as the demo (demo.py), composes the same sections itself.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.report.document import number, refuse_other_file, section, table, write_page
from mixer_jax.report.runs import Run, data_text, display_name, last_step, read_run
from mixer_jax.report.sections import (
    pictures_left_out,
    predictions_section,
    records_section,
    run_section,
    training_images_section,
    units_section,
)

PAGE = "report.html"


def report_runs(workdirs: Sequence[Path], out: str | Path | None = None, *, pictures: bool) -> Path:
    """Write a page about runs and return its path. If anything is missing in a run's folder, the page says so.

    Args:
      workdirs: the folders of the runs, in the order in which the page shows them.
      out: the file of the page. By default, it is report.html in the run's folder or, for several runs, in the innermost folder
        that contains them all. An existing page is replaced, but no other file.
      pictures: whether to open the data that the configs name, and to show images of them. A run's folder may have been made by
        somebody else, so data are opened only if the user asks for it.

    Raises:
      UserError: `workdirs` is empty, a folder holds no run or a damaged one, or `out` is a file that is no page.
    """
    if not workdirs:
        raise UserError("Name at least one run's folder.")
    folders = [Path(workdir).expanduser().absolute() for workdir in workdirs]
    file = Path(out).expanduser() if out else Path(os.path.commonpath(folders)) / PAGE
    refuse_other_file(file)
    names_repeat = len({folder.name for folder in folders}) < len(folders)
    runs = [read_run(folder, str(folder) if names_repeat else "") for folder in folders]
    picture_sections = (training_images_section, predictions_section) if pictures else (pictures_left_out,)
    sections_of_run = (run_section, *picture_sections, units_section)
    sections = [
        section("Results", _results(runs)),
        *(make_section(run) for make_section in sections_of_run for run in runs),
        records_section(runs),
    ]
    finished = sum(bool(run.starts) and run.results.get("step") == run.starts[-1]["total_steps"] for run in runs)
    lead = f"{len(runs)} run{'s' * (len(runs) > 1)} of mixer_jax, {finished} finished."
    write_page(file, ", ".join(run.label for run in runs), lead, sections)
    return file


def _results(runs: list[Run]) -> str:
    """Return a table with a row for each run: its training data, its last step, and its last top-1 accuracies in percent."""
    evals = [_top1(run) for run in runs]
    columns = list(dict.fromkeys(name for figures in evals for name in figures))
    header = ["run", "trained on", "step", *(f"{display_name(name)} %" for name in columns)]
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
