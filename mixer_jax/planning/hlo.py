"""What a compiled program's text says: cycles by operation, and what devices send each other.

The TPU compiler notes its estimate of cycles on most instructions, but on no collective. A loop's body counts each time. Nothing
here needs a compiler: text in, numbers out (XLA's format, as jaxlib and libtpu of the pins write it).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import prod

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\(")
CALLED = re.compile(r"\b(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.-]+)|branch_computations=\{([^}]*)\}")
CONDITION = re.compile(r"condition=%?([\w.-]+)")
BOUND = re.compile(r" = s32\[\]\S* constant\((\d+)\)")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
OP_NAME = re.compile(r'op_name="([^"]*)"')
CHANNEL = re.compile(r"channel_id=(\d+)")
FIRST_GROUP = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\])")
ARRAY = re.compile(r"\b([a-z]+)(\d+)[a-z0-9]*\[([\d,]*)\]")  # bf16[64,196]
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "send",
)  # the last: between slices
RUNS = ("while", "conditional", "call")  # their computations have cycles of their own; those of a fusion are in the fusion's


def costs(text: str) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """({op name: cycles}, {kind of collective: {"count", "bytes", bytes of each dtype}}), of one run on one device.

    The bytes are those of whole arrays: what an all-gather makes, a reduce-scatter takes, and both of an all-reduce. One that the
    compiler has cut into several instructions counts once.
    """
    cycles, collectives, seen = Counter(), defaultdict(Counter), set()
    computations, entry = _computations(text)
    for computation, times, priced, line in _walk(computations, entry, 1, True):
        name, result, opcode = INSTRUCTION.match(line).groups()
        if priced and (found := CYCLES.search(line)):
            op_name = OP_NAME.search(line)
            cycles[op_name.group(1) if op_name else name] += times * int(found.group(1))
        kind = opcode.removesuffix("-start")
        channel = CHANNEL.search(line)
        if kind not in COLLECTIVES or (channel and (kind, channel.group(1)) in seen):
            continue
        seen.add((kind, channel and channel.group(1)))
        kind = "reduce-scatter" if computation.startswith("all-reduce-scatter") else kind  # libtpu's way to write one
        sizes = _sizes(result, line, opcode)
        collectives[kind].update({"count": times, "bytes": times * sum(sizes.values())})
        collectives[kind].update({dtype: times * size for dtype, size in sizes.items()})
    return dict(cycles), {kind: dict(counts) for kind, counts in collectives.items()}


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """({name: its instructions}, the name of the one that is the program)."""
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if found := COMPUTATION.match(line):
            current = computations[found.group(2)] = []
            entry = found.group(2) if found.group(1) else entry
        elif INSTRUCTION.match(line):
            current.append(line)
    return computations, entry


def _walk(computations: dict, name: str, times: int, priced: bool) -> Iterator[tuple[str, int, bool, str]]:
    """(computation, how often it runs, whether its cycles are its own, line) of each instruction that `name` comes to run."""
    for line in computations[name]:
        yield name, times, priced, line
        opcode = INSTRUCTION.match(line).group(3)
        trips = _trips(computations[CONDITION.search(line).group(1)]) if opcode == "while" else 1
        for one, several in CALLED.findall(line):
            for called in [one] if one else re.findall(r"[\w.-]+", several):
                yield from _walk(computations, called, times * trips, priced and opcode in RUNS)


def _trips(condition: list[str]) -> int:
    """How often a loop runs that counts from 0 to the one number that its condition has, as JAX's scan does; otherwise 1."""
    bounds = [int(found.group(1)) for line in condition if (found := BOUND.search(line))]
    return bounds[0] if len(bounds) == 1 else 1


def _sizes(result: str, line: str, opcode: str) -> dict[str, int]:
    """Bytes of each dtype of a collective's arrays."""
    arrays = [
        (kind + bits, int(bits) // 8 * prod(map(int, filter(None, dims.split(",")))))
        for kind, bits, dims in ARRAY.findall(result)
    ]
    if opcode == "send" or (
        opcode.endswith("-start") and opcode != "all-reduce-start"
    ):  # (what goes in, what comes out, signals)
        arrays = [max(arrays, key=lambda array: array[1])]
    group = FIRST_GROUP.search(line)
    parts = (int(group.group(2) or 0) or len(group.group(1).split(","))) if opcode.startswith("reduce-scatter") and group else 1
    sizes = Counter()
    for dtype, size in arrays:
        sizes[dtype] += parts * size
    return dict(sizes)
