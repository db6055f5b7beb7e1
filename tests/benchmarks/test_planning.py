"""The tables of the planner's estimates are complete, are checked, and stand in the docs."""

import json

import pytest
from planning.fake_compiler import FakeCompiler

from benchmarks.planning import __main__, pictures, tables
from mixer_jax import app, endings
from mixer_jax.errors import UserError
from mixer_jax.planning.plan import PAPER_CORE_DAYS, PAPER_THROUGHPUT


def test_the_fit_table_has_every_pre_training_config_and_is_written_and_checked(tmp_path, monkeypatch):
    fake = FakeCompiler(gib_an_image=0.3)
    table = tables.fit(fake)
    tables.write("fit", table, tmp_path)
    assert tables.read("fit", tmp_path) == table
    names = {row["config"] for row in table["rows"]}
    assert names == {f"{file} {row}" for file, rows in PAPER_CORE_DAYS.items() for row in rows}
    assert len((tmp_path / "fit.csv").read_text().splitlines()) == 1 + len(table["rows"])
    assert "| 30 |" in pictures.format_table("fit", table)
    text = pictures.format_table("fit", tables.fit(FakeCompiler(gib_an_image=0.47)))
    assert "no, 5.25 GiB too much" in text and "of 32 GiB" in text

    monkeypatch.setattr(tables, "read", lambda name: table)
    assert all("step 1.000 x recorded" in line for line in tables.check(fake))
    slower = FakeCompiler(gib_an_image=0.3)
    monkeypatch.setattr(slower, "compile", lambda request: fake.compile(request) | {"cycles": {"a": 2 * 10**9}})
    with pytest.raises(UserError, match=r"worse than recorded.*\n.*B/16 on v3:8x8"):
        list(tables.check(slower))


def test_the_fine_tuning_table_has_every_model_of_tables_2_and_3_at_each_of_its_sizes():
    fake = FakeCompiler(gib_an_image=0.01)
    rows = tables.fine_tuning(fake)["rows"]
    sizes = {(row["model"], row["pixels"]) for row in rows}
    assert len(sizes) == len(rows) == sum(map(len, PAPER_THROUGHPUT.values()))
    assert {("Mixer-L/16", 448), ("ViT-H/14", 518), ("BiT-R152x4", 480), ("BiT-R200x3", 224)} < sizes
    for row, request in zip(rows, fake.requests, strict=True):
        config = request.config
        assert row["model"].endswith(f"-{config.model.variant}") and row["pixels"] == config.image_size
        assert config.batch_size == 512 == 64 * row["batch_per_core"] and config.optimizer.name == "sgd"


def test_the_throughput_table_has_every_model_of_the_papers_column_and_a_picture(tmp_path):
    table = tables.throughput(FakeCompiler(gib_an_image=0.01))
    assert [row["model"] for row in table["rows"]] == [
        f"{family} {name}" for (family, _), names in PAPER_THROUGHPUT.items() for name in names
    ]
    assert {row["paper"] for row in table["rows"]} >= {11489, 194, 87, 356}
    pictures.plot(table, tmp_path / "throughput.png")
    assert (tmp_path / "throughput.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("fit", ("config", "topology", "overrides")),
        ("fine_tuning", ("model", "pixels")),
        ("throughput", ("model", "pixels")),
        ("speed", ("model", "stage", "batch_per_core")),
    ],
)
def test_a_recorded_table_has_every_row_in_order(name: str, key: tuple[str, ...]):
    made = tables.TABLES[name](FakeCompiler(gib_an_image=0.01))["rows"]
    recorded = tables.read(name)["rows"]
    assert [[row[field] for field in key] for row in recorded] == [[row[field] for field in key] for row in made]
    assert {field for row in recorded for field in row} - {"over_gib"} == {field for row in made for field in row}


def test_a_table_is_made_written_and_printed_by_its_name(tmp_path, monkeypatch, capsys):
    class Compiler(FakeCompiler):
        def __init__(self, timeout):
            super().__init__()

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    monkeypatch.setattr(__main__, "Compiler", Compiler)
    assert app.run_tool(__main__.make_parser(), ["throughput", f"--out={tmp_path}", "--json"]) == endings.DONE
    *markdown, figures = capsys.readouterr().out.splitlines()
    assert json.loads(figures) == tables.read("throughput", tmp_path) and (tmp_path / "throughput.png").exists()
    assert "\n".join(markdown) == pictures.format_table("throughput", json.loads(figures))


@pytest.mark.parametrize("name", [*tables.TABLES, "check"])
def test_a_table_has_configs_and_topologies_of_its_own(name):
    for option in ("--config.model.remat=True", "--topology=v3:8x8"):
        with pytest.raises(SystemExit):
            app.parse_tool(__main__.make_parser(), [name, option])


def test_the_speed_table_has_ours_and_the_reference_in_its_columns():
    table = tables.speed(FakeCompiler(gib_an_image=0.01))
    assert all(row["ours"] == row["reference"] > 0 and row["ratio"] == 1 for row in table["rows"])
    assert table["rows"][0].keys() == tables.read("speed")["rows"][0].keys()
