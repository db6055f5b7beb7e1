"""The command `reproduce` shows exhibits without data, runs or a TPU compiler, and refuses what it does not know."""

import json

import pytest

from mixer_jax.endings import DONE, TO_MEND
from mixer_jax.planning import compiler
from mixer_jax.reproduction.paper.exhibits import EXHIBITS


def test_table_3_has_all_26_rows_with_costs_and_reasons_and_needs_no_compiler(call, monkeypatch):
    monkeypatch.setattr(compiler, "Compiler", None)
    code, out, err = call("table3")
    assert (code, err) == (DONE, "")
    assert len([line for line in out.splitlines() if " pixels, " in line]) == 26
    assert "JFT-300M is internal to Google" in out and "Neither the Mixer paper nor the ViT paper gives" in out
    assert "image-net.org" in out and "planner's estimate" in out and "libtpu" in out
    (part,) = json.loads(call("table3", "--columns=core_days", "--json")[1])["parts"]
    assert len([row for row in part["rows"] if row["cells"][0]["core_days_left"] > 0 and row["cells"][0]["reasons"]]) == 26


@pytest.mark.parametrize("exhibit", [name for name in EXHIBITS if name != "table1"])
def test_every_exhibit_is_shown_with_the_meaning_of_its_statuses(call, exhibit: str):
    code, out, _ = call(exhibit)
    assert code == DONE and all(shown.title in out for shown in EXHIBITS[exhibit])
    assert all(row.name in out for shown in EXHIBITS[exhibit] for row in shown.rows)


def test_rows_and_columns_are_chosen_and_json_has_the_commands(call):
    code, out, _ = call("table3", "--rows=Mixer-B/16", "--columns=imagenet, real", "--json")
    figures = json.loads(out)
    (part,) = figures["parts"]
    assert code == DONE and [row["group"] for row in part["rows"]] == ["ImageNet", "ImageNet-21k", "JFT-300M"]
    assert [cell["column"] for cell in part["rows"][0]["cells"]] == ["imagenet", "real"]
    (command,) = part["rows"][0]["cells"][0]["commands"]
    assert "--config=configs/finetune.py:imagenet " in command and "released:imagenet1k/Mixer-B_16" in command
    _, out, _ = call("table3", "--rows=*448 pixels*", "--columns=imagenet")
    assert out.count("Mixer-L/16, 448 pixels") == 2 and "core_days" not in out.split("Core-days")[0]


def test_the_brackets_in_the_name_of_a_row_are_taken_as_they_are(call):
    code, out, _ = call("table3", "--rows=ViT-L/16 [14]", "--columns=imagenet")
    assert code == DONE and "87.76" in out and "85.63" not in out


def test_a_table_shows_no_column_that_is_empty(call):
    code, out, _ = call("table1", "--rows=S/32")
    assert code == DONE and "core-days" not in out and "  18.59" in out and "  2048" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table3", "--rows=Mixer-X"], "its rows are Mixer-B/16"),
        (["table3", "--columns=imagnet"], "its columns are imagenet, real, avg5, throughput, core_days"),
        (["table3", "--columns=pixels"], "its columns are imagenet"),
        (["table3", "--workdir=nowhere"], "There is no folder nowhere"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(call, arguments: list[str], said: str):
    code, out, err = call(*arguments)
    assert (code, out) == (TO_MEND, "") and said in err and err.count("\n") == 1


def test_an_exhibit_that_there_is_not_is_refused_with_those_there_are(call):
    with pytest.raises(SystemExit) as end:
        call("table5")
    assert end.value.code == TO_MEND
