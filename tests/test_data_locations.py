"""--data-locations: data sets are read from where the file says, what was typed stays, and runs resume exactly."""

import json
import re
import runpy
import shutil
from pathlib import Path

import pytest
from absl import flags
from conftest import ROOT
from programs import finish, start

import train
from mixer_jax import app, endings
from mixer_jax.config import flatten
from mixer_jax.config_files import define_config, use_locations
from mixer_jax.data.sources.registry import SOURCES
from mixer_jax.data_locations import SOURCE, Location, read_locations
from mixer_jax.errors import UserError
from mixer_jax.records import read_results

SHARDS = ROOT / "tests/written_at_094b98b/data"  # train and test, 10 classes
TINY = str(ROOT / "tests/tiny_config.py")
FINETUNE = str(ROOT / "configs/finetune.py:cifar10")
MIXTURE = """
from mixer_jax.config import dataset, default_config, fewshot, mixture

def get_config():
    config = default_config()
    config.data = mixture(a=dataset("tfds:a", "train[:90%]"), b=dataset("folder:b", "train"))
    config.evals = {"few": fewshot(mixture(a=dataset("tfds:a", "train")), dataset("tfds:a", "test"))}
    return config
"""


SHIPPED = {file: runpy.run_path(str(file)).get("ROWS", [None]) for file in sorted((ROOT / "configs").rglob("*.py"))}
CONFIGS = [f"{file.relative_to(ROOT)}{f':{row}' if row else ''}" for file, rows in SHIPPED.items() for row in rows]


def write(file: Path, text: str) -> str:
    file.write_text(text)
    return str(file)


def read(config: str, file: Path, text: str, *typed: str) -> dict:
    """The options of a config whose data lie where `text` says."""
    overrides = [*(f"--config.{flag}" for flag in typed), f"--data-locations={write(file, text)}"]
    return flatten(app.read_config(config, overrides))


def sections(options: dict) -> dict[str, str]:
    """{path of a dataset: its source}, found without the code under test."""
    return {path.removesuffix(".source"): value for path, value in options.items() if re.search(r"(^|\.)source$", path) and value}


@pytest.mark.parametrize("option", ["source", "data_dir"])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_data_set_of_every_shipped_config_is_moved_and_nothing_else(config: str, option: str, tmp_path: Path):
    before = flatten(app.read_config(config, []))
    numbers = {source: number for number, source in enumerate(dict.fromkeys(sections(before).values()))}
    here = {source: f"records:/here/{number}" if option == "source" else f"/here/{number}" for source, number in numbers.items()}
    text = "\n".join(f"[{json.dumps(source)}]\n{option} = {json.dumps(value)}" for source, value in here.items())
    after = read(config, tmp_path / "l.toml", f'{text}\n["tfds:of_no_config"]\ndata_dir = "/nowhere"\n')
    assert after == before | {f"{path}.{option}": here[source] for path, source in sections(before).items()}
    assert sections(before), "a config has data"


def test_the_recorded_config_of_a_run_moved_again_is_the_same(tmp_path: Path):
    text = f'["digits"]\nsource = "records:{SHARDS}"\nsplits = {{train = "test", test = "train"}}\n'
    once = read(TINY, tmp_path / "l.toml", text)
    assert {name: once[name] for name in ("data.split", "evals.fewshot.train.split", "evals.test.data.split")} == {
        "data.split": "test", "evals.fewshot.train.split": "test", "evals.test.data.split": "train",
    }  # fmt: skip
    config = app.read_config(TINY, [f"--data-locations={tmp_path / 'l.toml'}"])
    (tmp_path / "config.json").write_text(config.to_json())
    assert read(str(tmp_path / "config.json"), tmp_path / "l.toml", text) == once


PETS = '["tfds:cifar10"]\nsource = "folder:/pets"\nsplits = {train = "trn", test = "val"}\nverify = "ends"\n'
BUCKET = '["tfds:cifar10"]\ndata_dir = "gs://b/tfds"\nlocal_copy = "/fast"\n'
TEST = "evals.test.data"
REAL = "evals.real.data"
TYPED = {  # the file, what is typed, and options afterwards
    "nothing": (PETS, [], {"data.source": "folder:/pets", "data.split": "trn", f"{TEST}.split": "val", f"{TEST}.verify": "ends"}),
    "a split": (PETS, ["data.split=train[:98%]"], {"data.source": "folder:/pets", "data.split": "train[:98%]"}),
    "another option": (PETS, [f"{TEST}.verify=full"], {f"{TEST}.verify": "full", "data.verify": "ends"}),
    "another source": (
        PETS, ["data.source=digits"],
        {"data.source": "digits", "data.split": "train", "data.verify": "full", f"{TEST}.split": "val"},
    ),
    "the same source": (PETS, ["data.source=tfds:cifar10"], {"data.source": "tfds:cifar10", "data.split": "train"}),
    "the same source, in another directory": (
        BUCKET, ["data.source=tfds:cifar10"], {"data.source": "tfds:cifar10", "data.data_dir": "gs://b/tfds"},
    ),
    "a source that is not in the file": (
        BUCKET, ["data.source=tfds:cifar100"], {"data.data_dir": "", f"{TEST}.data_dir": "gs://b/tfds"},
    ),
    "a source that is in the file": (
        BUCKET.replace("cifar10", "cifar100"), ["data.source=tfds:cifar100"],
        {"data.data_dir": "gs://b/tfds", f"{TEST}.data_dir": ""},
    ),
    "a directory": (BUCKET, ["data.data_dir=/mine"], {"data.data_dir": "/mine", "data.local_copy": "/fast"}),
    "a new evaluator": (
        PETS, [f"{REAL}.source=tfds:cifar10", f"{REAL}.split=test"],
        {f"{REAL}.source": "folder:/pets", f"{REAL}.split": "test", f"{REAL}.verify": "ends"},
    ),
    "an evaluator less": (PETS, ["evals=None"], {"data.source": "folder:/pets"}),
}  # fmt: skip


@pytest.mark.parametrize("case", TYPED)
def test_what_is_typed_stays_and_the_rest_is_moved(case: str, tmp_path: Path):
    text, typed, expected = TYPED[case]
    after = read(FINETUNE, tmp_path / "l.toml", text, *typed)
    assert {name: after[name] for name in expected} == expected


def test_the_place_of_a_flag_among_the_others_does_not_matter(tmp_path: Path):
    file = write(tmp_path / "l.toml", PETS)
    words = [f"--config={FINETUNE}", f"--config.{TEST}.split=train", f"--data-locations={file}"]
    found = []
    for order in (words, [words[2], *words[:2]], ["--data-locations", file, *words[:2]]):
        values = flags.FlagValues()
        define_config(values, ["", *order])
        values(["", *order])
        use_locations(values)
        found.append(flatten(values.config))
    assert found[0] == found[1] == found[2]
    assert found[0][f"{TEST}.source"] == "folder:/pets" and found[0][f"{TEST}.split"] == "train"


def test_the_parts_of_mixtures_are_moved(tmp_path: Path):
    text = '["tfds:a"]\nsource = "records:gs://b/a"\nsplits = {train = "all"}\nlocal_copy = "none"\n'
    config = write(tmp_path / "c.py", MIXTURE)
    before, after = flatten(app.read_config(config, [])), read(config, tmp_path / "l.toml", text)
    moved = {"source": "records:gs://b/a", "local_copy": "none"}
    expected = {
        f"{path}.{name}": value
        for path in ("data.parts.a", "evals.few.train.parts.a", "evals.few.test")
        for name, value in moved.items()
    } | {"data.parts.a.split": "all[:90%]", "evals.few.train.parts.a.split": "all"}
    assert after == before | expected


def test_a_directory_of_the_config_does_not_go_along_to_another_source(tmp_path: Path):
    config = write(tmp_path / "c.py", MIXTURE.replace('"test")', '"test", data_dir="gs://b/tfds", local_copy="/fast")'))
    options = ("source", "data_dir", "local_copy")
    for text, expected in (
        ('source = "records:/a"', ("records:/a", "", "")),
        ('data_dir = "gs://c/tfds"', ("tfds:a", "gs://c/tfds", "/fast")),
    ):
        after = read(config, tmp_path / "l.toml", f'["tfds:a"]\n{text}\n')
        assert tuple(after[f"evals.few.test.{name}"] for name in options) == expected


@pytest.mark.parametrize(
    ("split", "here"),
    [
        ("train", "a"), ("test", "b"), ("dev", "dev"), ("", ""), ("train[:99%]", "a[:99%]"), ("train+test", "a+b"),
        ("train[5:]+dev", "a[5:]+dev"), ("train[51200:]", "rest"), ("training", "training"), ("test[train]", "b[train]"),
    ],
)  # fmt: skip
def test_a_split_has_its_name_there(split: str, here: str):
    assert Location({}, {"train": "a", "test": "b", "train[51200:]": "rest"}).split(split) == here


WRONG = {  # the content of a file, and the message after its name
    "no TOML": ("[tfds:cifar10]\n", r" is not a file of TOML: .*\(at line 1, column 6\)\.$"),
    "no TOML below": ('["digits"]\n\nsource = \n', r" is not a file of TOML: .*\(at line 3, column 10\)\.$"),
    "a table twice": ('["digits"]\n["digits"]\n', r" is not a file of TOML: .*digits.*line 2"),
    "not UTF-8": (b"\xff", r" is not a file of TOML: 'utf-8'"),
    "no source": ('["cifar10"]\ndata_dir = "x"\n', r': \["cifar10"\]: the name must be a source as configs name it: digits'),
    "a source without a name": ('["tfds:"]\ndata_dir = "x"\n', r': \["tfds:"\]: the name must be a source'),
    "no table": ('"tfds:cifar10" = "records:x"\n', r': \["tfds:cifar10"\]: it must be a table of options: source, data_dir'),
    "an unknown key": ('["digits"]\nsuorce = "x"\n', r': \["digits"\] suorce: there is no such option: they are source'),
    "an option of one split": ('["digits"]\nsplit = "x"\n', r': \["digits"\] split: there is no such option: .* and splits'),
    "another type": ('["digits"]\ndata_dir = 3\n', r': \["digits"\] data_dir: it is 3, and must be text in quotes\.$'),
    "a truth": ('["digits"]\nmax_labels = true\n', r': \["digits"\] max_labels: it is True, and must be a whole number\.$'),
    "a number out of bounds": ('["digits"]\nmax_labels = 0\n', r"max_labels: it is 0, and must be in \[1, 2\^16\)\.$"),
    "no choice": ('["digits"]\nverify = "no"\n', r"verify: it is 'no', and must be one of full, ends\.$"),
    "a source of no kind": ('["digits"]\nsource = "/data/x"\n', r"source: it is '/data/x', and must be digits, glyphs, "),
    "splits alone": ('["digits"]\nsplits = {train = "a"}\n', r': \["digits"\] splits: it must stand beside a source'),
    "splits that are none": ('["digits"]\nsplits = "a"\n', r': \["digits"\] splits: it must be a table'),
    "a split that is none": ('["digits"]\nsource = "glyphs"\nsplits.train = 1\n', r"splits\.train: it must be text in quotes"),
    "itself": ('["digits"]\nsource = "digits"\n', r"source is 'digits', which has a table of its own"),
    "one behind another": (
        '["tfds:a"]\nsource = "tfds:b"\n["tfds:b"]\ndata_dir = "/b"\n', r"\[\"tfds:a\"\] source is 'tfds:b', which has a table",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_states_no_locations_is_refused_with_the_line_or_the_key(case: str, tmp_path: Path):
    content, message = WRONG[case]
    (tmp_path / "l.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"^{re.escape(str(tmp_path))}/l\.toml{message}" if message[0] in " :" else message):
        app.read_config(TINY, [f"--data-locations={tmp_path / 'l.toml'}"])


def test_the_example_of_the_docs_is_such_a_file(tmp_path: Path):
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/data.md").read_text(), re.DOTALL)
    locations = read_locations(write(tmp_path / "l.toml", example))
    assert len(locations) == 3
    assert locations["tfds:oxford_iiit_pet"].split("test") == "val"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"There is no file nowhere\.toml, which --data-locations names\."):
        read_locations("nowhere.toml")
    with pytest.raises(UserError, match=r"There is no file /no/where\.toml"):
        read_locations("/no/where.toml")
    with pytest.raises(UserError, match="is a folder: name a file in it"):
        read_locations(str(tmp_path))


def test_every_kind_of_source_can_be_named():
    for kind in SOURCES:
        assert SOURCE.fullmatch(kind if kind in ("digits", "glyphs") else f"{kind}:x")


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
def test_a_mistake_in_the_file_is_one_message_and_leaves_nothing_behind(program: str, tmp_path: Path):
    file = write(tmp_path / "l.toml", '["digits"]\ndata_dri = "x"\n')
    more = ["--checkpoint=nowhere"] if program == "evaluate.py" else []
    said = finish(start(f"--workdir={tmp_path}/run", f"--data-locations={file}", *more, program=program), endings.TO_MEND)
    assert said.startswith(f'error: {file}: ["digits"] data_dri: there is no such option') and len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


SMALL = """
from tiny_config import get_config as tiny
from mixer_jax.config import classification, dataset, duration

def get_config():
    config = tiny()
    config.total.steps, config.schedule.decay, config.schedule.warmup.steps = 2, "constant", 0
    config.model.num_blocks, config.augment.mixup = 1, 0.0
    config.data = dataset("SOURCE", "train")
    config.evals = {"test": classification(dataset("SOURCE", "test"), resize_size=8)}
    return config
"""


def test_a_run_goes_on_exactly_with_the_file_and_without_it_and_another_source_is_refused(tmp_path: Path, capsys):
    shutil.copytree(SHARDS, tmp_path / "here")
    config = write(tmp_path / "c.py", SMALL.replace("SOURCE", f"records:{SHARDS}"))
    file = write(tmp_path / "l.toml", f'["records:{SHARDS}"]\nsource = "records:{tmp_path}/here"\n')
    located, longer = f"--data-locations={file}", "--config.total.steps=4"
    assert train.train(app.read_config(config, [located]), str(tmp_path / "with")) == endings.DONE
    shutil.copytree(tmp_path / "with", tmp_path / "without")
    for name, overrides in (("with", [located, longer]), ("without", [longer])):
        assert train.train(app.read_config(config, overrides), str(tmp_path / name)) == endings.DONE
    assert f"config.data.source is records:{SHARDS} now, and was records:{tmp_path}/here" in capsys.readouterr().out
    recorded = json.loads((tmp_path / "with/config.json").read_text())
    assert recorded["data"]["source"] == recorded["evals"]["test"]["data"]["source"] == f"records:{tmp_path}/here"
    assert train.train(app.read_config(config, [longer]), str(tmp_path / "whole")) == endings.DONE
    results = [read_results(tmp_path / name) for name in ("with", "without", "whole")]
    assert results[0]["params_sha256"] == results[1]["params_sha256"] == results[2]["params_sha256"]
    assert results[0]["evals"] == results[1]["evals"] == results[2]["evals"]

    write(tmp_path / "l.toml", f'["records:{SHARDS}"]\nsource = "digits"\n')
    with pytest.raises(UserError, match=rf"another config(.|\n)*data\.source: 'records:{tmp_path}/here' there, 'digits' now"):
        train.train(app.read_config(config, [located, longer]), str(tmp_path / "with"))
