"""Somebody else's input of any kind is refused in a line: no code of its runs, nothing outside is touched, memory is bounded."""

import re
from pathlib import Path

import pytest
from hostile.builders import MEBIBYTE
from hostile.costs import Cost, costs
from hostile.inputs import INPUTS

MEBIBYTES, SECONDS = 300, 3  # that a hostile input may cost beyond a sound one of its kind
HARMLESS = {  # for what is read of them
    ("image", "png with a text of zeros"),
    ("labels", "a number of a million digits"),  # the name of a class
    ("checkpoint", "checkpoints/4/_CHECKPOINT_METADATA: folder"),
    ("parts", "train/.preparing/lock: flood"),
    ("metrics", "an event of 2^60 bytes"),  # the events after it are written again
}
REFUSALS = ("UserError", "UnreadableImageError", "EnvironmentFault")
CASES = [(reader, name) for reader, builders in INPUTS.items() for name in builders]
TRUSTING = [case for case in CASES if case[0] == "trusting" and case[1] != "sound"]


def size_mebibytes(folder: Path) -> float:
    return sum(file.lstat().st_blocks * 512 for file in folder.rglob("*") if file.is_file()) / MEBIBYTE


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[tuple[str, str], tuple[Path, float, Cost]]:
    """Return {(reader, name): (folder, its MiB, cost)}."""
    root = tmp_path_factory.mktemp("hostile")
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        for number, (reader, name) in enumerate(CASES):
            folders[reader, name] = root / f"{reader}_{number}"
            folders[reader, name].mkdir()
            INPUTS[reader][name](folders[reader, name])
        sizes = {case: size_mebibytes(folder) for case, folder in folders.items()}
        found = _costs(folders)
        # A busy machine makes CPU time longer, never shorter: what took too long is measured again, and the shorter time counts.
        slow = {case for case in CASES if found[case].seconds > found[case[0], "sound"].seconds + SECONDS}
        again = _costs({case: folders[case] for case in slow})
    for case in slow:
        found[case] = found[case]._replace(seconds=min(found[case].seconds, again[case].seconds))
    return {case: (folders[case], sizes[case], found[case]) for case in CASES}


def _costs(folders: dict[tuple[str, str], Path]) -> dict[tuple[str, str], Cost]:
    """Return the cost of each reading of {(reader, name): folder}."""
    found = costs([(reader, folder) for (reader, _), folder in folders.items()])
    return {case: found[str(folder)] for case, folder in folders.items()}


def faults(measured, reader: str, name: str) -> list[str]:
    """Return what was wrong with the reading of an input."""
    folder, size, cost = measured[reader, name]
    sound = measured[reader, "sound"][2]
    found = {
        "a traceback": cost.ending not in (*REFUSALS, "read"),
        "memory": cost.mebibytes > sound.mebibytes + 2 * size + MEBIBYTES,
        "time": cost.seconds > sound.seconds + SECONDS,
        "code ran or a file was made": any(folder.rglob("canary")) or (folder.parent / "canary").exists(),
        "words of the file": not cost.message.replace("\n", "").isprintable() or len(cost.message) > 2000,
    }
    return [fault for fault, is_so in found.items() if is_so]


def test_a_hostile_input_costs_little_and_touches_nothing(measured):
    found = {case: (wrong, measured[case]) for case in CASES if case not in TRUSTING and (wrong := faults(measured, *case))}
    assert not found


def test_only_sound_and_harmless_inputs_are_read(measured):
    read = {case for case, (_, _, cost) in measured.items() if case[0] not in ("run", "trusting") and cost.ending == "read"}
    assert read == HARMLESS | {case for case in CASES if case[1].startswith("sound")} - {("run", "sound"), ("trusting", "sound")}


def test_the_measurement_sees_a_reader_that_trusts(measured):
    assert {name: faults(measured, "trusting", name) for _, name in TRUSTING} == {
        "memory": ["memory"],
        "memory of a child": ["memory"],
        "time": ["time"],
        "canary": ["code ran or a file was made"],
        "traceback": ["a traceback"],
    }


def test_a_page_shows_no_pictures_that_nobody_named(measured):
    folder = measured["run", "private pictures"][0]
    page = Path(f"{folder}.html").read_text()
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)  # The library of charts names <img> too.
    assert "data:image" not in page and "<img" not in without_scripts and len(without_scripts) < 100_000
