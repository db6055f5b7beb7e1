"""The page about any runs: a table of their results, their curves, then pictures and records.

A study that needs another order or table, such as the demo (demo.py), composes the same sections itself.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from mixer_jax.errors import UserError
from mixer_jax.pages.page import refuse_other_file, write_page
from mixer_jax.pages.parts import Section, Table, number
from mixer_jax.report.answers import answers_sections
from mixer_jax.report.comparison import comparison_sections
from mixer_jax.report.curves import curves
from mixer_jax.report.runs import Run, config_differences, display_name, last_step, read_run
from mixer_jax.report.sections import (
    pictures_left_out,
    records_section,
    run_section,
    training_images_sections,
    units_section,
)
from mixer_jax.report.wall_time import wall_time_sections

PAGE = "report.html"
MAX_OPTIONS = 12  # columns of the results table for options that differ


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
    folders = list(dict.fromkeys(Path(workdir).expanduser().absolute() for workdir in workdirs))
    file = Path(out).expanduser() if out else Path(os.path.commonpath(folders)) / PAGE
    refuse_other_file(file)
    names_repeat = len({folder.name for folder in folders}) < len(folders)
    runs = [read_run(folder, str(folder) if names_repeat else "") for folder in folders]
    is_one = len(runs) == 1
    sections = [
        Section("Results", [results_table(runs)]),
        *([] if is_one else [Section("Curves", curves(runs))]),
        *comparison_sections(runs, pictures=pictures),
        *(run_section(run, with_curves=is_one) for run in runs),
        *wall_time_sections(runs),
        *(training_images_sections(runs) if pictures else [pictures_left_out(runs)]),
        *answers_sections(runs, pictures=pictures),
        *(units_section(run) for run in runs),
        records_section(runs),
    ]
    finished = sum(bool(run.starts) and run.results.get("step") == run.starts[-1]["total_steps"] for run in runs)
    lead = f"{len(runs)} run{'s' * (not is_one)} of mixer_jax, {finished} finished."
    write_page(file, ", ".join(run.label for run in runs), lead, sections)
    return file


def results_table(runs: Sequence[Run]) -> Table:
    """Return a table with a row for each run: options that differ, the last step, and the last top-1 accuracies in percent."""
    evals = [_top1(run) for run in runs]
    figures = list(dict.fromkeys(name for figures in evals for name in figures))
    values = [{name: value for name, _, value in config_differences(run, runs[0])} for run in runs]
    first_values = {name: value for run in runs for name, value, _ in config_differences(run, runs[0])}
    options = sorted(first_values)
    rows = [
        [
            run.label,
            *(values_of_run.get(name, first_values[name]) for name in options[:MAX_OPTIONS]),
            number(last_step(run)),
            *("\u2013" if figures_of_run.get(name) is None else f"{100 * figures_of_run[name]:.1f}" for name in figures),
        ]
        for run, values_of_run, figures_of_run in zip(runs, values, evals, strict=True)
    ]
    notes = ["Top-1 accuracy of the last evaluation, on the examples of each evaluator\u2019s test split."]
    if len(options) > MAX_OPTIONS:
        notes.append(f"{len(options) - MAX_OPTIONS} more options differ: they are in the records below.")
    return Table(["run", *options[:MAX_OPTIONS], "step", *(f"{display_name(name)} %" for name in figures)], rows, notes)


def _top1(run: Run) -> dict[str, float | None]:
    return {
        f"{evaluator}/{figure}": value
        for evaluator, figures in run.results.get("evals", {}).items()
        for figure, value in figures.items()
        if figure.startswith("top1") and not isinstance(value, list)
    }
