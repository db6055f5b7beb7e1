"""Predictions per example: their Parquet file, what follows from them for each class, and files that are none of ours."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixer_jax.errors import UserError
from mixer_jax.evaluation.example_predictions import (
    METADATA_KEY,
    ExamplePredictions,
    accuracy_by_class,
    confusion_matrix,
    confusions,
    read_predictions,
    write_predictions,
)
from mixer_jax.evaluation.predictions_reader import parse

NAMES = ("cat", "dog", "n01440764", "7", "caf\u00e9", 'a, "b"\n', "last")


def drawn(sets: list[list[int]], names: tuple[str, ...] = NAMES) -> ExamplePredictions:
    """Predictions for examples with these labels, of which about half are right."""
    rng, count, width = np.random.default_rng(0), len(sets), max(map(len, sets), default=0)
    classes = np.stack([rng.permutation(len(names))[:5] for _ in sets]) if sets else np.zeros((0, min(5, len(names))))
    for row in range(0, count, 2):
        if sets[row]:
            other = classes[row] != sets[row][0]
            classes[row] = [sets[row][0], *classes[row][other]][: classes.shape[1]]
    return ExamplePredictions(
        step=12,
        params_sha256="0123456789abcdef" * 4,
        data="split 'test', 9 records",
        class_names=names,
        records=np.arange(count),
        keys=[f"{names[labels[0]] if labels else ''}/{number}.png" for number, labels in enumerate(sets)],
        labels=np.array([labels + [-1] * (width - len(labels)) for labels in sets], np.int32).reshape(count, width),
        classes=classes.astype(np.int32),
        probabilities=np.sort(rng.random(classes.shape, np.float32), axis=1)[:, ::-1],
    )


RNG = np.random.default_rng(1)
SINGLES = [[int(label)] for label in RNG.integers(0, 6, 40)]
SETS = [RNG.choice(6, number % 4, replace=False).tolist() for number in range(40)]
CASES = {
    "one label": drawn(SINGLES),
    "sets of labels": drawn(SETS),
    "no labels": drawn([[]] * 3),
    "two classes": drawn([[1], [0], [1]], ("a", "b")),
    "one class": drawn([[0]], ("a",)),
    "no examples": drawn([]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_gives_back_what_was_written(case: str, tmp_path: Path):
    write_predictions(tmp_path / "dev.parquet", CASES[case])
    found = read_predictions(tmp_path / "dev.parquet")
    for name, value in CASES[case]._asdict().items():
        if isinstance(value, np.ndarray):
            assert getattr(found, name).dtype == value.dtype
            np.testing.assert_array_equal(getattr(found, name), value)
        else:
            assert getattr(found, name) == value
    assert [file.name for file in tmp_path.iterdir()] == ["dev.parquet"]


def test_names_of_any_bytes_are_written_and_what_is_not_finite_too(tmp_path: Path):
    odd = CASES["two classes"]._replace(keys=[os.fsdecode(b"caf\xe9.png"), "", "\u2028"], class_names=("\udce9", "b"))
    odd = odd._replace(probabilities=np.full((3, 2), np.nan, np.float32))
    write_predictions(tmp_path / "dev.parquet", odd)
    found = read_predictions(tmp_path / "dev.parquet")
    assert (found.keys, found.class_names) == ([r"caf\udce9.png", "", "\u2028"], ("\udce9", "b"))
    assert np.isnan(found.probabilities).all()


def test_any_program_reads_the_columns_by_their_names(tmp_path: Path):
    write_predictions(tmp_path / "dev.parquet", CASES["one label"])
    table = pq.read_table(tmp_path / "dev.parquet")
    pairs = [(f"class_{rank}", f"probability_{rank}") for rank in range(1, 6)]
    assert table.column_names == ["record", "key", "label_1", *(f"class_{rank}" for rank in range(1, 6))] + [
        name for _, name in pairs
    ]
    assert table.num_rows == 40 and table["key"][3].as_py() == CASES["one label"].keys[3]
    facts = json.loads(pq.read_metadata(tmp_path / "dev.parquet").metadata[METADATA_KEY])
    assert facts["class_names"] == list(NAMES) and facts["step"] == 12


@pytest.mark.parametrize("case", ["one label", "sets of labels", "no labels", "no examples", "two classes"])
def test_the_accuracy_of_a_class_is_over_the_examples_that_have_it(case: str):
    predictions = CASES[case]
    examples, right = accuracy_by_class(predictions)
    assert (examples.dtype, examples.shape, right.shape) == (np.int64, *[(len(predictions.class_names),)] * 2)
    for number in range(len(predictions.class_names)):
        rows = [row for row, labels in enumerate(predictions.labels.tolist()) if number in labels]
        assert examples[number] == len(rows)
        assert right[number] == sum(predictions.classes[row, 0] in predictions.labels[row] for row in rows)


def test_a_label_that_an_example_has_twice_counts_once():
    twice = CASES["two classes"]._replace(labels=np.array([[1, 1], [0, -1], [0, 1]], np.int32))
    twice = twice._replace(classes=np.array([[1, 0], [1, 0], [0, 1]], np.int32))
    assert [list(counts) for counts in accuracy_by_class(twice)] == [[2, 2], [1, 2]]
    assert confusion_matrix(twice).tolist() == [[0, 1], [0, 1]] and confusions(twice) == [(0, 1, 1)]


@pytest.mark.parametrize("case", ["one label", "sets of labels", "no labels", "no examples", "two classes"])
def test_confusions_are_the_mistakes_on_examples_of_one_class(case: str):
    predictions = CASES[case]
    rows = zip(predictions.labels.tolist(), predictions.classes.tolist(), strict=True)
    pairs = Counter(
        (label, answers[0]) for labels, answers in rows for label in labels if sum(x >= 0 for x in labels) == 1 <= label + 1
    )
    matrix = confusion_matrix(predictions)
    assert {pair: matrix[pair] for pair in pairs} == pairs and matrix.sum() == pairs.total()
    mistakes = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
    found = confusions(predictions)
    assert {(true, predicted): count for true, predicted, count in found} == mistakes
    assert found == sorted(found, key=lambda row: (-row[2], *row[:2]))


def rewritten(file: Path, change, facts=None, **options) -> None:
    """Write predictions as another program would: `change` makes the columns from ours, `facts` is the text of the metadata."""
    write_predictions(file, CASES["one label"])
    table, metadata = pq.read_table(file), pq.read_metadata(file).metadata
    options = {"compression": "none", "use_dictionary": False, "store_schema": False} | options
    columns = change({name: table[name].combine_chunks() for name in table.column_names})
    schema = pa.schema([pa.field(name, column.type, nullable=column.null_count > 0) for name, column in columns.items()])
    with pq.ParquetWriter(file, schema, **options) as writer:
        writer.write_table(pa.table(columns, schema=schema))
        writer.add_key_value_metadata({METADATA_KEY: metadata[METADATA_KEY] if facts is None else facts})


def integers(value: int, *, dtype=np.int32, count: int = 40) -> pa.Array:
    return pa.array(np.full(count, value, dtype))


FOREIGN = {  # What was changed, and a part of the reason.
    "a label of no class": (lambda c: c | {"label_1": integers(7)}, {}, "a label is no class"),
    "an answer of no class": (lambda c: c | {"class_2": integers(-1)}, {}, "an answer is no class"),
    "a probability of 2": (lambda c: c | {"probability_1": integers(2, dtype=np.float32)}, {}, "between 0 and 1"),
    "records twice": (lambda c: c | {"record": integers(3, dtype=np.int64)}, {}, "not in order"),
    "another column": (lambda c: c | {"image": integers(0)}, {}, "columns are others"),
    "no record": (lambda c: {name: c[name] for name in c if name != "record"}, {}, "columns are others"),
    "four answers": (lambda c: {name: c[name] for name in c if name[-1] != "5"}, {}, "columns are others"),
    "labels as text": (lambda c: c | {"label_1": pa.array(["x"] * 40)}, {}, "columns are others"),
    "moments for records": (lambda c: c | {"record": c["record"].cast(pa.timestamp("us"))}, {}, "columns are others"),
    "keys of bytes": (lambda c: c | {"key": c["key"].cast(pa.binary())}, {}, "columns are others"),
    "lists": (lambda c: c | {"label_1": pa.array([[1]] * 40)}, {}, "columns are others"),
    "a missing value": (lambda c: c | {"class_1": pa.array([None] * 40, pa.int32())}, {}, "empty values"),
    "a schema of Arrow": (lambda c: c, {"store_schema": True}, "which model"),
    "a million examples in a few bytes": (
        lambda c: {name: column.take(pa.array(np.zeros(10**6, np.int32))) for name, column in c.items()},
        {"compression": "zstd", "use_dictionary": True},
        "too small for 1000000 examples",
    ),
    "a long key for all examples": (
        lambda c: c | {"key": pa.array(["x" * 10_000] * 40)},
        {"use_dictionary": True},
        "other examples",
    ),
    "facts that are no JSON": (lambda c: c, {"facts": b"{"}, "Expecting"),
    "deep facts": (lambda c: c, {"facts": b"[" * 100_000}, "recursion"),
    "facts that are a list": (lambda c: c, {"facts": b"[1]"}, "description"),
    "a step that is a text": (
        lambda c: c,
        {"facts": b'{"step": "1", "params_sha256": "", "data": "", "class_names": []}'},
        "desc",
    ),
    "no classes": (
        lambda c: c,
        {"facts": json.dumps({"step": 1, "params_sha256": "0" * 64, "data": "", "class_names": []}).encode()},
        "it has 0 classes",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_another_kind_is_refused(case: str, tmp_path: Path):
    change, options, reason = FOREIGN[case]
    rewritten(tmp_path / "dev.parquet", change, **options)
    with open(tmp_path / "dev.parquet", "rb") as file, pytest.raises((ValueError, RecursionError), match=reason):
        parse(file)


def test_a_refusal_is_a_line_that_names_the_file(tmp_path: Path):
    file = tmp_path / "dev.parquet"
    write_predictions(file, CASES["one label"])
    content = file.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content.replace(b"record", b"RECORD")):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"dev\.parquet is damaged, or no file of predictions: it failed\. .+\. ") as caught:
            read_predictions(file)
        assert "\n" not in str(caught.value)


def test_no_byte_of_a_file_can_change_without_a_refusal(tmp_path: Path):
    """But for bytes that mean nothing, such as padding: then what is read is what was written."""
    file = tmp_path / "dev.parquet"
    write_predictions(file, CASES["two classes"])
    content, refused = file.read_bytes(), 0
    for position in range(len(content)):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        try:
            with open(file, "rb") as opened:
                columns = parse(opened)[4:]
        except (ValueError, OSError, pa.ArrowException):
            refused += 1
            continue
        assert all(np.array_equal(x, y) for x, y in zip(columns, CASES["two classes"][4:], strict=True)), position
    assert refused > len(content) // 2


def test_a_part_of_a_file_is_refused(tmp_path: Path):
    file = tmp_path / "dev.parquet"
    write_predictions(file, CASES["one label"])
    content = file.read_bytes()
    for length in range(0, len(content), 37):
        file.write_bytes(content[:length])
        with open(file, "rb") as opened, pytest.raises((ValueError, OSError)):
            parse(opened)


def test_what_is_no_file_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.parquet")
    for path in (tmp_path / "pipe.parquet", tmp_path):
        with pytest.raises(UserError, match="no ordinary file"):
            read_predictions(path)
    with pytest.raises(FileNotFoundError):
        read_predictions(tmp_path / "none.parquet")
