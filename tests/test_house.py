"""The floor plan holds: imports point one way, rooms and functions stay small, every module says what it is."""

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

# A room may import from lower layers only; rooms of one layer do not know each other.
LAYERS = [
    {"errors", "options"},
    {"config", "bucket", "classes", "environment", "endings", "stopwatch"},
    {"storage"},
    {"recorded_config", "validation"},
    {"lease", "mirror", "hosts", "data_locations", "tensorboard", "trackers"},
    {"config_files"},
    {"models", "parallel", "records", "app", "accelerators", "text_table", "worker_process"},
    {"workdir"},
    {"data", "checkpoints"},
    {"training", "evaluation", "supervision", "pages"},  # the loop receives evaluators as functions; supervise counts checkpoints
    {"preparation", "train", "evaluate"},
    {"planning", "bench", "report", "export"},
    {"launch", "api"},
    {"sweep"},
    {"reproduction"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
MODULES = sorted([*(ROOT / "mixer_jax").rglob("*.py"), ROOT / "train.py", ROOT / "evaluate.py"])
SOURCES = [*MODULES, *(ROOT / "configs").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]


def room_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "mixer_jax" else parts[0]


def imports_of(file: Path) -> set[str]:
    """Rooms of ours that a file imports from; the package never imports what lies outside it."""
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "mixer_jax":
            rooms |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mixer_jax."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "benchmarks":
            rooms.add("benchmarks")
    return rooms


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_down_and_never_to_a_neighbour(file: Path):
    room = room_of(file)
    if room == "__init__":
        return
    for other in imports_of(file) - {room}:
        assert LEVEL[other] < LEVEL[room], f"{room} imports {other}"


def test_no_files_import_each_other_in_a_circle():
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in SOURCES}
    imports: dict[str, set[str]] = {}
    for name, file in names.items():
        froms = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
        asked = [(f"{node.module}.{alias.name}", node.module) for node in froms for alias in node.names]
        imports[name] = {submodule if submodule in names else module for submodule, module in asked} & names.keys()
    while leaves := {name for name, others in imports.items() if not others}:
        imports = {name: others - leaves for name, others in imports.items() if name not in leaves}
    assert not imports, "these files, or what they need, are in a circle"


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.py")), ids=lambda file: file.name)
def test_a_config_imports_nothing_but_the_options(file: Path):
    assert imports_of(file) <= {"config", "errors"}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_says_what_it_is_and_stays_small(file: Path):
    text = file.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with what lives here"
    assert len(text.splitlines()) <= 400
    assert "TYPE_CHECKING" not in text and "TODO" not in text
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            code = node.body[1:] if ast.get_docstring(node) else node.body
            body = node.end_lineno - code[0].lineno + 1 if code else 0
            limit = 110 if (file.name, node.name) == ("train.py", "train") else 60
            assert body <= limit, f"{node.name} has {body} lines"


def test_a_file_of_tests_stays_small_too():
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in (ROOT / "tests").rglob("*.py")}
    assert not {name: length for name, length in lengths.items() if length > 400}


def test_tensorflow_is_never_imported_but_by_a_peer_in_a_process_of_its_own():
    peer = ROOT / "benchmarks/peers/big_vision.py"
    for file in {*SOURCES, *(ROOT / "tests").rglob("*.py")} - {peer}:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not any(name.split(".")[0] == "tensorflow" or name.endswith("peers.big_vision") for name in names), file


def test_no_option_is_read_with_a_default_of_its_own():
    assert not [file for file in SOURCES if "config.get(" in file.read_text()]


OPENED_OTHERWISE = {  # modules that read files without storage.py, and whose files these are
    "app.py": "our own source",
    "checkpoints/in_bucket.py": "a file that it writes",
    "checkpoints/files.py": "a file that it has just written",
    "checkpoints/transfer.py": "named by --config.init_classes, after is_file",
    "checkpoints/web.py": "a file that it writes",
    "classes.py": "our own list",
    "data/sources/local_copy.py": "a file that it writes, and the system's",
    "data/sources/shards.py": "a shard that it has just written",
    "data/sources/tfds_builder.py": "after storage.py has looked at the file; in a bucket by etils",
    "data/sources/tfds_copy.py": "a file that it writes",
    "data/stream/shared_memory.py": "our own memory",
    "evaluation/predictions.py": "a file that it writes",
    "export/program.py": "what the export check has just written",
    "hosts/joining.py": "nothing",
    "hosts/software.py": "our own source",
    "launch/bundle.py": "our own repository's index",
    "launch/commands.py": "our own script",
    "launch/doctor.py": "the system's",
    "planning/worker.py": "the cache, which is refused when others may write in it",
    "preparation/near_duplicates/within.py": "fingerprints that a preparation has written under the folder it holds",
    "preparation/upload.py": "a file that it writes",
    "stopwatch.py": "the system's",
    "supervision/log.py": "a file that it writes",
    "training/memory.py": "the system's",
    "worker_process.py": "the system's",
}


def test_files_of_others_are_opened_in_one_place_that_refuses_what_never_ends():
    reads = re.compile(r"(?<![.\w])open\((?!.*\"a\"\))|os\.open\(|\)\.open\(|\.read_(?:text|bytes)\(|np\.load\(")
    package = ROOT / "mixer_jax"
    found = {str(file.relative_to(package)) for file in package.rglob("*.py") if reads.search(file.read_text())}
    assert found - {"storage.py", "lease.py"} == OPENED_OTHERWISE.keys()
