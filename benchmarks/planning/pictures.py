"""Formats a recorded table as Markdown for docs/planning.md, and draws the throughput table."""

from collections.abc import Callable
from pathlib import Path

from benchmarks import markdown
from benchmarks.markdown import three_digits


def format_table(name: str, table: dict) -> str:
    """Return a table as Markdown. `name` is its name in tables.TABLES. The last line gives the versions of the estimators."""
    head, cells, summarize = COLUMNS[name]
    lines = [markdown.table(head, [cells(row) for row in table["rows"]]), ""]
    return "\n".join([*lines, f"Estimated by the TPU compiler ({table['estimated_by']}). {summarize(table['rows'])}".rstrip()])


def _fit(row: dict) -> list[str]:
    """Return the cells of a row of the fit table."""
    name = f"{row['config']} {row['overrides'].replace('--config.', '')}".strip()
    paper = row.get("paper_core_days")
    return [name, row["topology"], *_estimates(row), f"{paper:g}" if paper and row["topology"].startswith("v3") else ""]


def _fine_tuning(row: dict) -> list[str]:
    """Return the cells of a row of the fine-tuning table."""
    return [row["model"], str(row["pixels"]), *_estimates(row)]


def _estimates(row: dict) -> list[str]:
    """Return the cells that tables of training have in common."""
    if not row["fits"]:
        return [str(row["batch_per_core"]), f"no, {row['over_gib']:.2f} GiB too much" if row["over_gib"] else "no", "", "", ""]
    memory = f"{row['memory_gib']:.2f} of {row['memory_limit_gib']:g} GiB"
    speed = [three_digits(row[name]) for name in ("images_per_sec_per_core", "hours", "core_days")]
    return [str(row["batch_per_core"]), memory, *speed]


def _summarize_fit(rows: list[dict]) -> str:
    """Return a sentence that compares the core-days on 128 cores of TPU v3 with the paper's."""
    comparable = [row for row in rows if row["topology"] == "v3:8x8" and row.get("paper_core_days")]
    ratios = [row["core_days"] / row["paper_core_days"] for row in comparable]
    return f"The core-days on v3:8x8 are {min(ratios):.2f} to {max(ratios):.2f} times the paper's." if ratios else ""


def _summarize_throughput(rows: list[dict]) -> str:
    """Return a sentence that compares the estimates with what the paper measured."""
    ratios = [row["ratio"] for row in rows]
    return f"The estimates are {min(ratios):.2f} to {max(ratios):.2f} times the measured figures."


def _throughput(row: dict) -> list[str]:
    """Return the cells of a row of the throughput table."""
    model = [row["model"], str(row["pixels"]), str(row["batch_per_core"])]
    return [*model, three_digits(row["estimate"]), str(row["paper"]), f"{row['ratio']:.2f}"]


def _speed(row: dict) -> list[str]:
    """Return the cells of a row of the speed table."""
    return [
        f"{row['model']} {row['stage']}",
        str(row["batch_per_core"]),
        three_digits(row["ours"]),
        three_digits(row["reference"]),
        f"{row['ratio']:.2f}",
        three_digits(row["limit"]),
        f"{three_digits(row['ours_communicating'])}, {three_digits(row['reference_communicating'])}",
        f"{row['ours_memory_gib']:.2f}, {row['reference_memory_gib']:.2f}",
        f"{row['ours_temporary_gib']:.2f}, {row['reference_temporary_gib']:.2f}",
    ]


ESTIMATES = ["images a core", "memory a core", "images/s/core", "hours", "core-days"]
COLUMNS: dict[str, tuple[list[str], Callable[[dict], list[str]], Callable[[list[dict]], str]]] = {
    "fit": (
        ["config", "topology", *ESTIMATES, "paper's core-days"],
        _fit,
        _summarize_fit,
    ),
    "fine_tuning": (
        ["model", "pixels", *ESTIMATES],
        _fine_tuning,
        lambda rows: f"On {rows[0]['topology']}.",
    ),
    "throughput": (
        ["model", "pixels", "images at once", "estimate, images/s/core", "paper, measured", "ratio"],
        _throughput,
        _summarize_throughput,
    ),
    "speed": (
        [
            "images/s/core",
            "images a core",
            "ours",
            "reference",
            "ratio",
            "limit",
            "with communication",
            "memory a core, GiB: ours, reference",
            "temporaries of it",
        ],
        _speed,
        lambda rows: "",
    ),
}


def plot(table: dict, file: Path) -> None:
    """Draw the estimates of the throughput table against the paper's figures. Both axes are logarithmic."""
    from matplotlib.figure import Figure  # It is heavy, and most tools never need it.

    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    families = dict.fromkeys(row["model"].split()[0] for row in table["rows"])
    for family, marker in zip(families, "osD", strict=False):
        rows = [row for row in table["rows"] if row["model"].startswith(family)]
        axes.plot([row["paper"] for row in rows], [row["estimate"] for row in rows], marker, label=family)
    for i, row in enumerate(sorted(table["rows"], key=lambda row: row["paper"])):  # Names of neighbors stand on different sides.
        offset, side = ((-7, 3), "right") if i % 2 else ((7, -9), "left")
        name = row["model"].split()[1] + (f", {row['pixels']} px" if row["pixels"] != 224 else "")
        axes.annotate(name, (row["paper"], row["estimate"]), offset, textcoords="offset points", fontsize=8, ha=side)
    ends = [min(row["paper"] for row in table["rows"]) / 2, max(row["paper"] for row in table["rows"]) * 1.5]
    axes.plot(ends, ends, color="gray", linewidth=1, label="equal")
    axes.set(xscale="log", yscale="log", xlabel="paper, measured on TPU-v3 (images/s/core)")
    axes.set(ylabel=f"estimated by the TPU compiler ({table['estimated_by']})")
    axes.set_title(
        f"Inference: rank correlation {table['rank_correlation']['all']} (Mixers {table['rank_correlation']['mixer']})"
    )
    axes.legend()
    figure.savefig(file, dpi=120)
