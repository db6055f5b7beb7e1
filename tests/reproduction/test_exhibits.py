"""The paper's figures are those of a second transcription, and obey the laws that they must."""

from collections import Counter
from itertools import pairwise
from statistics import mean

import jax
import numpy as np
import pytest
from reproduction.transcription import TRANSCRIPTION

from mixer_jax.config import default_config
from mixer_jax.models.registry import make_model, param_shapes
from mixer_jax.planning.plan import PAPER_CORE_DAYS, PAPER_THROUGHPUT
from mixer_jax.reproduction.exhibit import (
    ACCURACY,
    CITED,
    DIGITIZED,
    EXTRAPOLATED,
    PRIVATE,
    STATED,
    TEXT,
    Column,
    Exhibit,
    Row,
    parse_exhibit,
)
from mixer_jax.reproduction.fine_tuning import FAMILIES
from mixer_jax.reproduction.paper.exhibits import EXHIBITS
from mixer_jax.reproduction.recipes import PRETRAININGS, is_cited_model, model_name, pretraining
from mixer_jax.reproduction.standing import image_size

ALL = [(name, shown) for name, exhibits in EXHIBITS.items() for shown in exhibits]
WITH_FIGURES = [(name, shown) for name, shown in ALL if any(column.kind != TEXT for column in shown.columns)]
SECOND = [*(table for name, tables in TRANSCRIPTION.items() if name != "supplement" for table in tables)]
TABLE_1, TABLE_2, TABLE_3 = (EXHIBITS[f"table{number}"][0] for number in (1, 2, 3))


def value(row: Row, column: str) -> float | None:
    return row.cells[column].value if column in row.cells else None


def rows_of(shown: Exhibit, group: str, model: str = "") -> list[Row]:
    return [row for row in shown.rows if row.group == group and model_name(row).startswith(model)]


@pytest.mark.parametrize(
    ("shown", "second"),
    list(zip([shown for _, shown in WITH_FIGURES], SECOND, strict=True)),
    ids=[s.title for _, s in WITH_FIGURES],
)
def test_every_cell_is_that_of_the_second_transcription(shown: Exhibit, second: dict):
    assert [row.name for row in shown.rows] == second["rows"]
    assert {column.name for column in shown.columns} == second.keys() - {"rows"}
    for column in shown.columns:
        assert [value(row, column.name) for row in shown.rows] == second[column.name], column.name


def test_the_values_of_the_search_are_those_of_the_second_transcription_and_256_combinations():
    (second,) = TRANSCRIPTION["supplement"]
    search = EXHIBITS["supplement"][1]
    assert [row.name for row in search.rows] == second["rows"]
    assert [value(row, "values") for row in search.rows] == second["values"]
    count = 1
    for row in search.rows:
        count *= len(row.cells["values"].text.split(", "))
    assert f"are {count} runs" in search.notes[0]


def test_marks_say_how_the_paper_came_by_a_figure():
    sources = {name: Counter(cell.source for row in shown.rows for cell in row.cells.values()) for name, shown in ALL}
    assert sources["table3"][EXTRAPOLATED] == 9 and sources["table3"][PRIVATE] == 4 * 3 and sources["table3"][CITED] == 3
    assert sources["table2"][CITED] == 1 + 4 + 3 + 1 + 4 + 4 + 2 + 2 and sources["figure4"] == {DIGITIZED: 42}
    mixer = next(row for row in TABLE_2.rows if row.name == "Mixer-L/16")
    assert {cell.source for cell in mixer.cells.values()} == {STATED} and mixer.cells["imagenet"].tolerance == 0.1
    assert mixer.cells["core_days"].tolerance == 5, "0.41k is known to 5 core-days"


def test_a_row_with_a_missing_field_is_not_taken():
    with pytest.raises(ValueError, match="zip"):
        parse_exhibit("A table", [Column("imagenet", ACCURACY), Column("real", ACCURACY)], "Mixer-B/16  76.44")


# The ViT paper (arXiv 2010.11929, Table 2) and the BiT paper (arXiv 1912.11370): ImageNet, CIFAR-10 and -100, Pets, Flowers.
AVG5 = {
    ("JFT-300M", "ViT-H/14"): (88.55, 99.50, 94.55, 97.56, 99.68),
    ("ImageNet-21k", "ViT-L/16"): (85.30, 99.15, 93.25, 94.67, 99.61),
    ("JFT-300M", "BiT-R152x4"): (87.54, 99.37, 93.51, 96.62, 99.63),
    ("ImageNet-21k", "BiT-R152x4"): (85.39, 98.91, 92.17, 94.46, 99.30),
}


@pytest.mark.parametrize(("group", "model"), AVG5)
def test_avg5_of_cited_rows_is_the_mean_of_the_figures_of_their_own_papers(group: str, model: str):
    (row,) = rows_of(TABLE_2, group, model)
    assert value(row, "imagenet") == AVG5[group, model][0]
    assert abs(value(row, "avg5") - mean(AVG5[group, model])) <= 0.0101  # The papers round each figure too.


@pytest.mark.parametrize("shown", [TABLE_2, TABLE_3], ids=["table2", "table3"])
def test_rows_are_sorted_by_throughput_and_labels_of_real_are_kinder(shown: Exhibit):
    for group in {row.group for row in shown.rows}:
        speeds = [value(row, "throughput") for row in rows_of(shown, group) if "throughput" in row.cells]
        out_of_order = [earlier for earlier, later in pairwise(speeds) if earlier < later]
        assert out_of_order == ([356] if (shown, group) == (TABLE_3, "JFT-300M") else []), "the paper has R152x2 too early"
    assert all(value(row, "real") > value(row, "imagenet") for row in shown.rows if {"real", "imagenet"} <= row.cells.keys())


def test_more_epochs_and_larger_models_of_a_family_are_better_on_jft():
    mixers = [row for row in rows_of(TABLE_3, "JFT-300M", "Mixer") if value(row, "pixels") == 224]
    by_cost = sorted(mixers, key=lambda row: (value(row, "core_days"), value(row, "imagenet")))
    for column in ("imagenet", "real", "avg5"):
        scores = [value(row, column) for row in by_cost if not row.name.endswith("/32")]
        assert scores == sorted(scores)


def test_one_model_at_one_size_has_one_throughput_and_one_pre_training_one_cost():
    speeds, costs = {}, {}
    for row in TABLE_3.rows:
        key = (model_name(row), value(row, "pixels"))
        assert speeds.setdefault(key, value(row, "throughput")) == value(row, "throughput")
        if "[14]" not in row.name:
            key = (row.group, row.name, value(row, "epochs"))
            assert costs.setdefault(key, value(row, "core_days")) == value(row, "core_days")


def test_the_planner_has_the_papers_throughput_and_core_days():
    families = {family: name for name, family in FAMILIES.items()}
    planner = {
        (f"{families[family]}-{variant}", pixels): speed
        for (family, pixels), variants in PAPER_THROUGHPUT.items()
        for variant, speed in variants.items()
    }
    rows = [(name, row) for name in ("table2", "table3") for row in EXHIBITS[name][0].rows if not is_cited_model(row)]
    speeds, days = {}, {}
    for name, row in rows:
        assert speeds.setdefault((model_name(row), image_size(name, row)), value(row, "throughput")) == value(row, "throughput")
        days.setdefault(pretraining(row).config, set()).add(value(row, "core_days"))
    assert planner == speeds
    ours = {f"configs/{file}.py:{row}": {days} for file, rows in PAPER_CORE_DAYS.items() for row, days in rows.items()}
    assert ours == {config: found for config, found in days.items() if config}


def test_core_days_on_imagenet_are_extrapolated_by_the_number_of_images():
    images = {"ImageNet": 1.28e6 * 300, "ImageNet-21k": 14e6 * 300}
    for group in images:
        for row in rows_of(TABLE_3, group, "Mixer"):
            (jft,) = [r for r in rows_of(TABLE_3, "JFT-300M", row.name) if value(r, "epochs") == 7]
            expected = value(jft, "core_days") * images[group] / (7 * 300e6)
            assert value(row, "core_days") == pytest.approx(expected, rel=0.15, abs=row.cells["core_days"].tolerance)


def test_figures_2_and_3_show_the_points_of_the_tables():
    points = [(row.group, row.name, value(row, "imagenet"), value(row, "core_days")) for row in (*TABLE_2.rows, *TABLE_3.rows)]
    left = EXHIBITS["figure2"][0]
    for row in left.rows:
        if row.cells["imagenet"].source != DIGITIZED:
            assert (row.group, row.name, value(row, "imagenet"), value(row, "core_days")) in points
    at_224 = [row for row in rows_of(TABLE_3, "JFT-300M") if value(row, "pixels") == 224]
    scores = {(row.name, value(row, "epochs")): value(row, "imagenet") for row in at_224}
    for row in EXHIBITS["figure3"][0].rows:
        if row.cells["imagenet"].source != DIGITIZED:
            assert scores[row.name, value(row, "epochs")] == value(row, "imagenet")


def test_figure_4_has_the_drops_that_the_text_states():
    """The text: permuting all pixels costs Mixer about 45 %, and the ResNet about 75 %, of its accuracy."""
    mixer, _, mixer_permuted, resnet, _, resnet_permuted = (value(row, "518k") for row in EXHIBITS["figure4"][0].rows)
    assert 1 - mixer_permuted / mixer == pytest.approx(0.45, abs=0.03)
    assert 1 - resnet_permuted / resnet == pytest.approx(0.75, abs=0.03)


def test_figure_4_rises_with_the_steps_and_figure_2_with_the_images():
    for shown in (EXHIBITS["figure4"][0], EXHIBITS["figure2"][1]):
        for row in shown.rows:
            scores = [cell.value for cell in row.cells.values()]
            assert scores == sorted(scores)


def test_the_text_compares_h14_with_the_table():
    """Section 3: at 224 pixels, Mixer-H/14 is 0.3 points behind ViT-H/14 and 2.2 times as fast."""
    (mixer,), (vit,) = rows_of(TABLE_3, "JFT-300M", "Mixer-H/14"), rows_of(TABLE_3, "JFT-300M", "ViT-H/14")
    assert round(value(vit, "imagenet") - value(mixer, "imagenet"), 1) == 0.3
    assert round(value(mixer, "throughput") / value(vit, "throughput"), 1) == 2.2


@pytest.mark.parametrize("row", TABLE_1.rows, ids=lambda row: row.name)
def test_table_1_is_of_our_models(row: Row):
    config = default_config()
    config.model.variant = row.name
    assert (224 // value(row, "patch")) ** 2 == value(row, "tokens")
    shapes = param_shapes(make_model(config.model, None), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32))
    leaves = jax.tree.leaves(shapes)
    assert round(sum(leaf.size for leaf in leaves) / 1e6) == value(row, "parameters")
    block = shapes["MixerBlock_0"]
    assert block["token_mixing"]["Dense_0"]["kernel"].shape == (value(row, "tokens"), value(row, "tokens_mlp"))
    assert block["channel_mixing"]["Dense_0"]["kernel"].shape == (value(row, "hidden"), value(row, "channels_mlp"))
    assert sum(name.startswith("MixerBlock_") for name in shapes) == value(row, "layers")


def test_every_model_that_the_paper_ran_has_a_recipe_or_a_reason_why_not():
    shown = [*TABLE_2.rows, *TABLE_3.rows, *EXHIBITS["figure2"][0].rows, *EXHIBITS["figure3"][0].rows]
    assert all(bool(pretraining(row).config) != bool(pretraining(row).reason) for row in shown)
    used = {pretraining(row).config for row in shown}
    assert {f"configs/{file}" for recipes in PRETRAININGS.values() for file in recipes.values()} <= used
