"""The tables of docs/reproduction.md, from the same data as `python -m mixer_jax reproduce`. Nothing here is measured."""

from benchmarks.markdown import table, three_digits
from mixer_jax.reproduction.costs import PAPER, PLANNER
from mixer_jax.reproduction.exhibit import SETTING, SOURCES
from mixer_jax.reproduction.paper.exhibits import EXHIBITS
from mixer_jax.reproduction.recipes import CHOICES
from mixer_jax.reproduction.show import figures_of
from mixer_jax.reproduction.status import STATUSES

BASES = {PLANNER: "planner", PAPER: "paper"}


def reproduce_exhibits() -> str:
    """Return the exhibits with their columns."""
    rows = [
        [
            f"`{name}`",
            exhibit.title,
            str(len(exhibit.rows)),
            ", ".join(f"`{column.name}`" for column in exhibit.columns if column.kind != SETTING),
        ]
        for name, exhibits in EXHIBITS.items()
        for exhibit in exhibits
    ]
    return table(["word", "in the paper", "rows", "columns"], rows)


def reproduce_sources() -> str:
    """Return the words for how the paper came by a figure."""
    return table(["source", "meaning"], [[source, meaning] for source, meaning in SOURCES.items()])


def reproduce_statuses() -> str:
    """Return the status words and what they mean."""
    return table(["status", "meaning"], [[status, meaning] for status, meaning in STATUSES.items()])


def reproduce_choices() -> str:
    """Return what the paper leaves open, and what our recipes do there."""
    return table(["stage", "our choice"], [[stage, choice] for stage, choices in CHOICES.items() for choice in choices])


def reproduce_table3() -> str:
    """Return Table 3 with the paper's accuracies, the status of the row, and the estimated costs."""
    (part,) = figures_of("table3")["parts"]
    rows = []
    for row in part["rows"]:
        cells = {cell["column"]: cell for cell in row["cells"]}
        paper = [cells[column]["paper_text"] if column in cells else "" for column in ("imagenet", "real", "avg5")]
        all_runs = cells.get("avg5", cells["imagenet"])["core_days_left"]
        days = [three_digits(number) if number is not None else "" for number in (cells["core_days"]["core_days_left"], all_runs)]
        bases = dict.fromkeys(cells[column]["cost_basis"] for column in ("core_days", "imagenet"))
        basis = ", ".join(BASES[basis] for basis in bases if basis)
        rows.append([row["group"], row["label"], *paper, cells["imagenet"]["status"], *days, basis])
    head = ["pre-trained on", "row", "paper: ImageNet", "ReaL", "Avg 5", "status", "pre-training", "all fine-tuning", "cost by"]
    return table(head, rows)


TABLES = {
    function.__name__: function
    for function in (reproduce_exhibits, reproduce_sources, reproduce_statuses, reproduce_choices, reproduce_table3)
}
