"""Reads the text of a compiled program: the cycles of each operation, and the collectives between devices.

The TPU compiler writes its estimate of cycles on most instructions, but on no collective. The body of a loop is counted as often
as the loop runs it. This module needs no compiler. The format of the text is XLA's, as the pinned jaxlib and libtpu write it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import prod

# Parts of a program's text. A computation begins with a line that ends in {, and has one instruction on each line.
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\(")
CALLED = re.compile(r"\b(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.-]+)|branch_computations=\{([^}]*)\}")
CONDITION = re.compile(r"condition=%?([\w.-]+)")
BOUND = re.compile(r" = s32\[\]\S* constant\((\d+)\)")  # The integer that a loop counter is compared with.
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
OP_NAME = re.compile(r'op_name="([^"]*)"')
CHANNEL = re.compile(r"channel_id=(\d+)")
FIRST_GROUP = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}|\[\d+,(\d+)\])")  # The devices of a collective.
ARRAY = re.compile(r"\b([a-z]+)(\d+)[a-z0-9]*\[([\d,]*)\]")  # For example bf16[64,196].
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "send",  # Slices send to each other over the data center network.
)
# Instructions whose called computations have cycles of their own. The cycles of a fusion's computation are part of the fusion's.
CONTROL_FLOW = ("while", "conditional", "call")


def costs(text: str) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Return what one run of a program costs on one device: (cycles by op name, collectives by kind).

    A kind of collective has {"count": how many run, "bytes": their bytes, and the bytes of each dtype, such as "bf16"}. The bytes
    are those of whole arrays: the output of an all-gather, the input of a reduce-scatter, either of an all-reduce. A collective
    that the compiler has split into several instructions counts once.
    """
    cycles, collectives, seen = Counter(), defaultdict(Counter), set()
    computations, entry = _computations(text)
    for computation, num_runs, has_own_cycles, line in _walk(computations, entry, 1, True):
        name, result, opcode = INSTRUCTION.match(line).groups()
        if has_own_cycles and (match := CYCLES.search(line)):
            op_name = OP_NAME.search(line)
            cycles[op_name.group(1) if op_name else name] += num_runs * int(match.group(1))
        kind = opcode.removesuffix("-start")
        channel = CHANNEL.search(line)
        if kind not in COLLECTIVES or (channel and (kind, channel.group(1)) in seen):
            continue
        seen.add((kind, channel and channel.group(1)))
        if computation.startswith("all-reduce-scatter"):  # libtpu writes a reduce-scatter as a computation of this name.
            kind = "reduce-scatter"
        sizes = _sizes(result, line, opcode)
        collectives[kind].update({"count": num_runs, "bytes": num_runs * sum(sizes.values())})
        collectives[kind].update({dtype: num_runs * size for dtype, size in sizes.items()})
    return dict(cycles), {kind: dict(counts) for kind, counts in collectives.items()}


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Return the instructions of each computation by its name, and the name of the computation where the program starts."""
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            current = computations[match.group(2)] = []
            entry = match.group(2) if match.group(1) else entry
        elif INSTRUCTION.match(line):
            current.append(line)
    return computations, entry


def _walk(computations: dict, name: str, num_runs: int, has_own_cycles: bool) -> Iterator[tuple[str, int, bool, str]]:
    """Yield every instruction that computation `name` runs, also in the computations that it calls.

    An instruction is (name of its computation, how often it runs, whether its cycles count, its line). The cycles inside a fusion
    do not count: they are part of the fusion's own.
    """
    for line in computations[name]:
        yield name, num_runs, has_own_cycles, line
        opcode = INSTRUCTION.match(line).group(3)
        trips = _trips(computations[CONDITION.search(line).group(1)]) if opcode == "while" else 1
        for single, branches in CALLED.findall(line):
            for called in [single] if single else re.findall(r"[\w.-]+", branches):
                yield from _walk(computations, called, num_runs * trips, has_own_cycles and opcode in CONTROL_FLOW)


def _trips(condition: list[str]) -> int:
    """Return how often a loop runs, from the instructions of its condition.

    A loop that counts from 0 to a constant, as jax.lax.scan does, has one integer constant in its condition. Any other loop is
    taken to run once.
    """
    bounds = [int(match.group(1)) for line in condition if (match := BOUND.search(line))]
    return bounds[0] if len(bounds) == 1 else 1


def _sizes(result: str, line: str, opcode: str) -> dict[str, int]:
    """Return the bytes of a collective's whole arrays by dtype."""
    arrays = [
        (kind + bits, int(bits) // 8 * prod(map(int, filter(None, dims.split(",")))))
        for kind, bits, dims in ARRAY.findall(result)
    ]
    if opcode == "send" or (opcode.endswith("-start") and opcode != "all-reduce-start"):
        arrays = [max(arrays, key=lambda array: array[1])]  # The result is a tuple of the input, the output and flags.
    group = FIRST_GROUP.search(line)
    parts = (int(group.group(2) or 0) or len(group.group(1).split(","))) if opcode.startswith("reduce-scatter") and group else 1
    sizes = Counter()
    for dtype, size in arrays:
        sizes[dtype] += parts * size
    return dict(sizes)
