"""Writes the tables of docs/ and of README.md from the records: `python -m benchmarks.pages`.

A table stands between the lines `<!-- NAME -->` and `<!-- end -->`. NAME is its name in TABLES. No measurement is made here:
`python -m benchmarks.record` and `python -m benchmarks.planning` make the records.
"""

import re
from collections.abc import Callable

from benchmarks import exhibits
from benchmarks.chaos.runner import format_results
from benchmarks.markdown import code, table, three_digits
from benchmarks.peers.process import ROOT
from benchmarks.planning import pictures, tables
from benchmarks.record import read
from mixer_jax.report.demo import format_rows

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKED = re.compile(r"^( *)<!-- (\w+) -->\n.*?^ *<!-- end -->$", re.DOTALL | re.MULTILINE)


def render(page: str) -> str:
    """Return a page with each table as its record has it."""

    def block(match: re.Match) -> str:
        indent, name = match.groups()
        lines = [f"<!-- {name} -->", *TABLES[name]().splitlines(), "<!-- end -->"]
        return "\n".join((indent + line).rstrip() for line in lines)

    return MARKED.sub(block, page)


def machine(record: dict) -> str:
    """Return sentences that say where and when a record was made, and its note if it has one."""
    avx512 = "with" if record["avx512"] else "without"
    changed = " with changes" if record["commit"].endswith("+") else ""
    text = (
        f"Measured on {record['date']} on {record['cores']} cores ({record['cpu']}, {avx512} AVX-512), at commit "
        f"{record['commit'][:7]}{changed}; the machine's load was {record['load_before']} before."
    )
    return f"{text} {record.get('note', '')}".strip()


def demo() -> str:
    """Return the demo's table of results, and how long it took."""
    record = read("demo")
    figures = record["runs"]["demo"]["figures"]
    text = code(format_rows(figures["rows"]).splitlines())
    return f"{text}\n\nThe demo took {three_digits(figures['seconds'])} s. {machine(record)}"


def surgery() -> str:
    """Return the accuracy of each change of resolution before and after fine-tuning, and the error of tiling."""
    record = read("demo")
    figures = record["runs"]["surgery"]["figures"]
    accuracy = {tuple(name.split(" px, ")): value for name, value in figures["top1"].items()}
    methods = ["as it was", "tiles", "interpolated", "random"]

    def cell(side: str, method: str) -> str:
        value = accuracy.get((side, method))
        return f"{100 * value['before']:.1f}, {100 * value['after']:.1f} %" if value else ""

    rows = [[side, *(cell(side, method) for method in methods)] for side in dict.fromkeys(side for side, _ in accuracy)]
    errors = "; ".join(f"{error:.0e} for {model}" for model, error in figures["tiles_relative_error"].items())
    law = f"Relative difference of the tiled model's pooled features from the mean over the tiles: {errors}."
    return f"{table(['pixels', *methods], rows)}\n\n{law} {machine(record)}"


def timm() -> str:
    """Return the speed of training and prediction beside the reference model and timm."""
    record = read("timm")
    head = ["Mixer", "batch", "ours, images/s", "reference model", "timm", "ours / timm, by the clock", "by CPU time"]
    rows = []
    for label, run in record["runs"].items():
        speeds = run["figures"]["figures"]
        ours = speeds.get("ours_comparable", speeds["ours"])
        columns = [speeds_of["images_per_sec"] for speeds_of in (ours, speeds["reference"], speeds["timm"])]
        columns += [speeds["timm"][ratio] for ratio in ("ours_is_times_as_fast", "by_cpu_time")]
        rows.append([label, str(run["figures"]["batch_size"]), *map(three_digits, columns)])
    return f"{table(head, rows)}\n\n{machine(record)}"


def stages() -> str:
    """Return the CPU time of each stage of the input pipeline."""
    record = read("input")
    milliseconds = record["runs"]["processes"]["figures"]["stage_cpu_ms_per_image"]
    rows = [[stage, f"{value:.2f}"] for stage, value in (milliseconds | {"all": sum(milliseconds.values())}).items()]
    return f"{table(['stage', 'ms of CPU for an image'], rows)}\n\n{machine(record)}"


def pipelines() -> str:
    """Return the speed of whole input pipelines: ours with processes and with threads, Grain's and big_vision's."""
    record = read("input")
    by_processes, by_threads = (record["runs"][workers]["figures"] for workers in ("processes", "threads"))
    rows = []
    for augmentation, speeds in by_processes["pipelines"].items():
        named = {f"{name}, processes" if name == "ours" else name: speed for name, speed in speeds.items()}
        named["ours, threads"] = by_threads["pipelines"][augmentation]["ours"]
        ratios = [by_processes[key][augmentation] for key in ("ours_over_others", "ours_over_others_by_clock")]
        for name, speed in named.items():
            figures = [speed["images_per_cpu_sec"], *speed["images_per_sec"].values(), speed["speed_up"]]
            over = [three_digits(ratio[name]) if name in ratio else "" for ratio in ratios]
            rows.append([augmentation, name, *map(three_digits, figures), *over])
    clocks = [f"images/s, {count} core{'s' * (count != '1')}" for count in speed["images_per_sec"]]
    head = ["", "pipeline", "images/CPU-s", *clocks, "speed-up", "ours / this, by CPU time", "by the clock"]
    return f"{table(head, rows)}\n\n{machine(record)}"


def bucket_input() -> str:
    """Return the cost of reading a split by ranges from a bucket, beside its copy."""
    record = read("bucket_input")
    (run,) = record["runs"].values()
    figures, rows = run["figures"], []
    for name, speed in figures["pipelines"].items():
        rows.append([name, *(three_digits(speed[key]) for key in ("images_per_sec", "cpu_ms_per_image", "requests_per_image"))])
    head = ["read from", "images/s", "ms of CPU for an image", "requests for an image, in one pass"]
    facts = (
        f"{figures['images']:,} images of {three_digits(figures['kilobytes_per_image'])} KB; the stand-in answers after "
        f"{three_digits(figures['latency_ms'])} ms, and runs on the same cores."
    )
    return f"{table(head, rows)}\n\n{facts} {machine(record)}"


def memory() -> str:
    """Return what splits of several sizes cost a host."""
    record = read("memory")
    rows = []
    for run in record["runs"].values():
        figures = run["figures"]
        mib = figures["resident_mib"]
        seconds = [three_digits(figures[name]) for name in ("start_up_seconds", "start_up_seconds_hashing_ends")]
        rows.append([f"{figures['records']:,}", f"{figures['shards']:,}", *seconds, str(mib["peak"]), str(mib["workers"])])
    head = ["images", "shards", "seconds to start", "with `data.verify=ends`", "MiB of the run", "of its workers together"]
    return f"{table(head, rows)}\n\n{machine(record)}"


def near_duplicates() -> str:
    """Return the share of the copies that are found by kind, the pictures that are taken for copies, and the CPU time."""
    record = read("near_duplicates")
    (run,) = record["runs"].values()
    figures = run["figures"]
    large, small = (dict(figures[name]) for name in ("recall_percent", "recall_percent_at_32_pixels"))
    originals, small_originals = large.pop("originals"), small.pop("originals")
    head = [f"copies of {originals} parts of photographs", "found", f"found at 32 pixels, of {small_originals}"]
    kinds_found: dict[tuple[float, float], list[str]] = {}
    for kind in large:
        kinds_found.setdefault((large[kind], small[kind]), []).append(kind)
    rows = [
        ["; ".join(kinds), *(f"{three_digits(recall)} %" for recall in found)]
        for found, kinds in sorted(kinds_found.items(), reverse=True)
    ]
    false = figures["false_positives"]
    wrong = ", ".join(f"{found['taken_for_copies']} of {found['pairs']:,} pairs of {name}" for name, found in false.items())
    times, within = figures["cpu_ms_per_image"], figures["within"]
    sentences = [
        f"Different pictures that are taken for copies: {wrong}.",
        f"The fingerprint of an image takes {three_digits(times['fingerprint'])} ms of CPU, and decoding the image takes",
        f"{three_digits(times['decode'])} ms. A search within {within['images']:,} images takes",
        f"{three_digits(within['cpu_seconds'])} s of CPU. From that, a search within the 14 million images of ImageNet-21k is",
        f"estimated to take {three_digits(within['cpu_hours_for_14_million_estimated'])} hours of CPU.",
        machine(record),
    ]
    return f"{table(head, rows)}\n\n{' '.join(sentences)}"


def survival() -> str:
    """Return what was done to runs, how often, and what came out."""
    record = read("chaos")
    (run,) = record["runs"].values()
    took = f"`{run['command']}` took {record['minutes']:.0f} minutes."
    return f"{format_results(run['figures']['rows'])}\n\n{took} {machine(record)}"


def startup() -> str:
    """Return the seconds from the start of train.py to its first step by phase, and those that a save takes."""
    record, rows = read("startup"), []
    for model, run in record["runs"].items():
        for kind, seconds in run["figures"]["seconds"].items():
            rows.append([model, kind, *map(three_digits, seconds.values())])
    head = ["", "", *seconds]
    saves = " and ".join(f"{three_digits(run['figures']['save_seconds'])} s ({model})" for model, run in record["runs"].items())
    return f"{table(head, rows)}\n\nA save keeps the devices waiting for {saves}. {machine(record)}"


TABLES: dict[str, Callable[[], str]] = {
    function.__name__: function
    for function in (demo, surgery, timm, stages, pipelines, bucket_input, memory, startup, near_duplicates, survival)
} | {name: lambda name=name: pictures.format_table(name, tables.read(name)) for name in tables.TABLES}
TABLES |= exhibits.TABLES

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
