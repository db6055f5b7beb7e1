"""The flag --config: the config.json of a run, and evaluators that are added and switched off on the command line."""

import json
from pathlib import Path

import pytest
from conftest import ROOT

from mixer_jax.app import read_config
from mixer_jax.checkpoints.run_paths import config_file
from mixer_jax.config import flatten
from mixer_jax.config_files import SWITCHED_OFF
from mixer_jax.errors import UserError

TINY = str(ROOT / "tests/tiny_config.py")
FILES = [TINY, *(str(ROOT / f"configs/{name}") for name in ("finetune.py", "pretrain_imagenet.py:B/16", "demo/pretrain.py"))]


def with_flags(*typed: str) -> dict:
    return flatten(read_config(TINY, [f"--config.{text}" for text in typed]))


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file).name)
def test_the_config_json_of_a_run_is_a_config_file_with_the_same_options_of_the_same_types(tmp_path: Path, file: str):
    config = read_config(file, [])
    config.optimizer.multipliers = (("head/.*", 2.0),)
    (tmp_path / "config.json").write_text(config.to_json())
    read = read_config(str(tmp_path / "config.json"), [])
    assert read.is_locked
    assert flatten(read) == flatten(config)
    assert {name: type(value) for name, value in flatten(read).items()} == {
        name: type(value) for name, value in flatten(config).items()
    }
    assert read_config(str(tmp_path / "config.json"), ["--config.seed=7"]).seed == 7
    with pytest.raises(UserError, match=r"no option --config\.sed"):
        read_config(str(tmp_path / "config.json"), ["--config.sed=7"])


def test_a_mixture_is_read_back_too(tmp_path: Path):
    config = read_config(TINY, [])
    with config.unlocked():
        config.data.source = ""
        config.data.parts = {"a": read_config(TINY, []).data, "b": read_config(TINY, []).data}
    (tmp_path / "config.json").write_text(config.to_json())
    assert flatten(read_config(str(tmp_path / "config.json"), [])) == flatten(config)


@pytest.mark.parametrize(
    "content", ["{", "{}", "[]", '{"seed": "x"}', '{"sed": 1}', '{"evals": {"a": 3}}', '{"evals": {"a": {}}}']
)
def test_a_config_json_that_is_none_is_one_message(tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(str(tmp_path / "config.json"), [])


ADDED = {  # typed, the evaluator's name and kind, and options of it
    "data": (["dev.data.source=digits"], "classification", {"data.source": "digits", "data.split": "train"}),
    "few-shot data": (["dev.train.source=digits", "dev.test.source=digits"], "fewshot", {"test.source": "digits"}),
    "few-shot options": (["dev.shots=(2,)"], "fewshot", {"shots": (2,), "train.source": ""}),
    "kind": (["dev.every.steps=3", "dev.kind=fewshot"], "fewshot", {"every.steps": 3}),
    "any": (["dev.every.steps=3"], "classification", {"every.steps": 3, "data.source": ""}),
}


@pytest.mark.parametrize(("typed", "kind", "options"), ADDED.values(), ids=ADDED)
def test_an_evaluator_of_a_new_name_is_added_and_said(typed: list[str], kind: str, options: dict, capsys):
    added = with_flags(*(f"evals.{text}" for text in typed))
    assert added["evals.dev.kind"] == kind
    assert {name: added[f"evals.dev.{name}"] for name in options} == options
    assert {name: value for name, value in added.items() if not name.startswith("evals.dev.")} == with_flags()
    assert capsys.readouterr().err == f"config.evals.dev is a new evaluator ({kind}), beside fewshot, test.\n"


def test_an_option_that_no_evaluator_has_is_refused():
    with pytest.raises(UserError, match=r"no option --config\.evals\.dev\.dta\.source\. Did you mean \"data\""):
        with_flags("evals.dev.dta.source=digits")


@pytest.mark.parametrize("none", ["None", "none"])
@pytest.mark.parametrize(
    ("typed", "left"), [(["evals.test"], {"fewshot"}), (["evals"], set()), (["evals.test", "evals.fewshot"], set())]
)
def test_an_evaluator_can_be_switched_off(typed: list[str], left: set[str], none: str):
    names = with_flags(*(f"{text}={none}" for text in typed))
    assert {name.split(".")[1] for name in names if name.startswith("evals.")} == left


def test_an_evaluator_that_is_not_there_cannot_be_switched_off():
    with pytest.raises(UserError, match=r"--config.evals.tset=None: the config has no such evaluator; it has fewshot, test\."):
        with_flags("evals.tset=None")


@pytest.mark.parametrize("argument", ["--config.evals.test.resize=None", "--config.evals.test=Nonesuch", "--config.model=None"])
def test_nothing_else_is_taken_for_switching_off(argument: str):
    assert not SWITCHED_OFF.fullmatch(argument)


def test_the_config_of_a_checkpoint_is_its_runs(tmp_path: Path):
    (tmp_path / "run/checkpoints/30").mkdir(parents=True)
    file = tmp_path / "w.npz"
    file.touch()
    for path, reason in (("run", "no config.json"), ("w.npz", "no run's folder"), ("gs://bucket/w.npz", "no run's folder")):
        with pytest.raises(UserError, match=rf"Without --config.*{path}; but .*{reason}. Add --config=FILE"):
            config_file(path if "://" in path else str(tmp_path / path))
    (tmp_path / "run/config.json").write_text(json.dumps({}))
    for path in ("run", "run/checkpoints/30"):
        assert config_file(str(tmp_path / path)) == str(tmp_path / "run/config.json")


MAKE = "from mixer_jax.config import default_config\n"
NOT_CONFIGS = {  # name and content of a file, what is typed after its path, and the message
    "no get_config": ("c.py", "x = 1\n", "", r"c\.py has no function get_config"),
    "empty": ("c.py", "", "", r"c\.py has no function get_config"),
    "get_config is no function": ("c.py", "get_config = 3\n", "", r"c\.py has no function get_config"),
    "its syntax": ("c.py", "x = (\ny = 1\n", "", r"fails in .*c\.py, line 1: SyntaxError"),
    "a tab": ("c.py", "def get_config():\n    x = 1\n\treturn x\n", "", r"fails in .*c\.py, line 3: TabError"),
    "not UTF-8": ("c.py", b"x = 'caf\xe9'\n", "", r"fails in .*c\.py.*: SyntaxError: .*utf-8"),
    "a binary": ("c.py", b"\x7fELF\0\0", "", r"fails in .*c\.py: .*null bytes"),
    "within get_config": ("c.py", "def get_config():\n    a = 1\n    return b\n", "", r"c\.py, line 3: NameError: name 'b'"),
    "an import": ("c.py", "import nothing_of_this_name\n", "", r"c\.py, line 1: ModuleNotFoundError"),
    "a file that it reads": ("c.py", "open('/nowhere')\n", "", r"c\.py, line 1: FileNotFoundError"),
    "itself": ("c.py", "def get_config():\n    return get_config()\n", "", r"c\.py, line 2: RecursionError"),
    "an unknown option": (
        "c.py", f"{MAKE}def get_config():\n    c = default_config()\n    c.batchsize = 3\n", "",
        r'c\.py, line 4: there is no option "batchsize"\. Did you mean "batch_size"\?$',
    ),
    "an option of another type": (
        "c.py", f"{MAKE}def get_config():\n    c = default_config()\n    c.batch_size = 'x'\n", "",
        r"c\.py, line 4: TypeError: Could not override field 'batch_size'",
    ),
    "it returns nothing": ("c.py", f"{MAKE}def get_config():\n    default_config()\n", "", r"get_config in .*c\.py returns None"),
    "it returns a dict": ("c.py", "def get_config():\n    return {}\n", "", r"returns an object of type dict"),
    "it returns another config": (
        "c.py", "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'seed': 1})\n", "",
        r"The config of .*c\.py lacks accumulation_steps, augment",
    ),
    "an argument too many": ("c.py", f"{MAKE}get_config = default_config\n", ":B/16", r"'B/16', and its get_config takes none"),
    "no argument": ("c.py", f"{MAKE}def get_config(x):\n    return x\n", "", r"its get_config needs one: .*c\.py:ARG"),
    "YAML": ("c.yaml", "seed: 1\n", "", r"c\.yaml is no config: that is a file of Python"),
    "no suffix": ("c", "seed: 1\n", "", r"/c is no config: that is a file of Python"),
    "other JSON": ("c.json", '{"a": 1}', "", r"c\.json is no config of a run.*\"a\" does not exist"),
    "missing": ("c.py", None, "", r"There is no config file .*c\.py\.$"),
    "missing, with an argument": ("c.py", None, ":B/16", r"There is no config file .*c\.py\.$"),
    "a folder": ("", None, "", r"is a folder: name a file in it"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_CONFIGS)
def test_what_is_no_config_is_told_in_one_line(tmp_path: Path, case: str):
    name, content, argument, message = NOT_CONFIGS[case]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        read_config(f"{tmp_path / name}{argument}", [])
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 400


def test_an_error_in_a_config_that_is_imported_has_the_line_there(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "imported_config.py").write_text("\ndef get_config():\n    return 1 / 0\n")
    (tmp_path / "c.py").write_text("import imported_config\ndef get_config():\n    return imported_config.get_config()\n")
    with pytest.raises(UserError, match=r"imported_config\.py, line 3: ZeroDivisionError"):
        read_config(str(tmp_path / "c.py"), [])
