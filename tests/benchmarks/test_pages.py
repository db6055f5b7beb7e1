"""The tables of README.md and docs/ are those that the records give, and every record is made by commands that exist."""

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys

import pytest

from benchmarks import demo, pages, record
from benchmarks.markdown import three_digits
from mixer_jax import app, endings
from mixer_jax.__main__ import make_parser
from mixer_jax.errors import EnvironmentFault, UserError

RUN = subprocess.run
COMMANDS = [command for commands in record.COMMANDS.values() for command in commands.values()]


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_has_the_tables_that_the_records_give(page):
    text = page.read_text()
    assert text == pages.render(text), "run python -m benchmarks.pages"
    assert text.count("<!-- end -->") == len(pages.MARKED.findall(text)) == text.count("<!-- ") / 2


def test_every_table_is_on_a_page():
    shown = {name for page in pages.PAGES for _, name in pages.MARKED.findall(page.read_text())}
    assert shown == pages.TABLES.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_record_can_be_typed(command):
    module, *arguments = shlex.split(command)
    if importlib.util.find_spec(module).submodule_search_locations:  # It is a package, whose __main__ is run.
        module = f"{module}.__main__"
    parser = make_parser(arguments) if module == "mixer_jax.__main__" else importlib.import_module(module).make_parser()
    app.parse_tool(parser, [*arguments, "--json"])


def test_a_record_has_the_figures_the_commands_and_the_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RECORDED", tmp_path)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "COMMANDS", {"good": {"a": "json.tool"}, "bad": {"b": "no_such_module"}})
    monkeypatch.setattr(subprocess, "run", _fake_run)
    assert app.run_tool(record.make_parser(), ["good"]) == endings.DONE
    made = record.read("good")
    assert made["runs"] == {"a": {"command": "python -m json.tool", "figures": {"speed": 2}}}
    assert made["cores"] > 0 and re.fullmatch(r"\d{4}-\d\d-\d\d", made["date"]) and "jax" in made["versions"]
    assert made["commit"][:7] in pages.machine(made)
    with pytest.raises(EnvironmentFault, match="no_such_module` ended with exit code 1"):
        record.record("bad", {})
    assert not (tmp_path / "bad.json").exists()
    assert app.run_tool(record.make_parser(), ["better"]) == endings.TO_MEND
    assert "No such record: better. There are good, bad." in capsys.readouterr().err


def _fake_run(command, **options):
    """Stand in for the commands of a record. Programs of the system, such as git, run as usual."""
    if command[0] != sys.executable:
        return RUN(command, **options)
    assert command[1] == "-m" and command[-1] == "--json"
    return subprocess.CompletedProcess(command, int(command[2] == "no_such_module"), f"a line\n{json.dumps({'speed': 2})}\n")


def test_results_of_the_demo_that_are_far_from_the_recorded_ones_are_refused():
    recorded = [["digits: from scratch", "10", "90.3 ± 2.6 %", ""], ["   the difference", "10", "6.5 ± 2.1 %", ""]]
    demo.check([["digits: from scratch", "10", "91.9 ± 2.6 %", ""], ["   the difference", "10", "2.5 ± 2.1 %", ""]], recorded)
    with pytest.raises(UserError, match=r"digits: from scratch, labels per class 10: 80.0 ± 2.6 %, recorded 90.3"):
        demo.check([["digits: from scratch", "10", "80.0 ± 2.6 %", ""], recorded[1]], recorded)


def test_figures_have_three_digits():
    assert [three_digits(x) for x in (0.98765, 12.345, 123456)] == ["0.988", "12.3", "123,000"]
