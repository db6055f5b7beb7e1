"""Reads a Parquet file of predictions, which may be anybody's. `example_predictions.read_predictions` runs this as a program."""

import json
import os
import re
from typing import Any, BinaryIO

import numpy as np
import pyarrow.parquet as pq

from mixer_jax.classes import MAX_CLASSES, from_json
from mixer_jax.evaluation.example_predictions import METADATA_KEY, TOP_CLASSES, ExamplePredictions
from mixer_jax.storage import open_regular
from mixer_jax.worker_process import bound_memory, serve

MEMORY_BYTES, MEMORY_PER_FILE_BYTE = 2**28, 16  # in addition to the memory of Python and Arrow


def read(file: str) -> tuple[Any, ...]:
    """Return what `parse` returns, unless it needs more memory than MEMORY_BYTES and MEMORY_PER_FILE_BYTE allow this process."""
    with open_regular(file) as opened:
        bound_memory(MEMORY_BYTES + MEMORY_PER_FILE_BYTE * os.fstat(opened.fileno()).st_size)
        return parse(opened)


def parse(file: BinaryIO) -> tuple[Any, ...]:
    """Return the fields of ExamplePredictions from a file.

    Raises ValueError, or an error of Arrow, for anything that is not such a file. Other programs may have written it anew, even
    with compression, as long as it is not smaller than its content.
    """
    file_bytes = os.fstat(file.fileno()).st_size
    parquet = pq.ParquetFile(file, page_checksum_verification=True)
    scalars, num_examples = _scalars(parquet.metadata.metadata or {}), parquet.metadata.num_rows
    num_classes = len(scalars["class_names"])
    num_answers = min(TOP_CLASSES, num_classes)
    num_labels = _check_columns(parquet.schema, num_answers)
    is_possible = 0 <= num_examples <= file_bytes // (12 + 4 * num_labels + 8 * num_answers)
    _check(is_possible, f"it is too small for {num_examples} examples")
    table = parquet.read(use_threads=False)
    _check(table.num_rows == num_examples and table.nbytes <= file_bytes, "it has other examples than it says")

    def numbers(prefix: str, dtype: Any) -> np.ndarray:
        columns = [table[name].to_numpy() for name in table.column_names if name.startswith(prefix)]
        return np.stack(columns, axis=1) if columns else np.empty((num_examples, 0), dtype)

    labels, classes = numbers("label_", np.int32), numbers("class_", np.int32)
    records, probabilities = table["record"].to_numpy(), numbers("probability_", np.float32)
    _check(bool(np.all(np.diff(records, prepend=-1) > 0)), "its records are not in order")
    _check(bool(np.all((labels >= -1) & (labels < num_classes))), "a label is no class")
    _check(bool(np.all((classes >= 0) & (classes < num_classes))), "an answer is no class")
    _check(not np.any((probabilities < 0) | (probabilities > 1)), "a probability is not between 0 and 1")
    keys = table["key"].to_pylist()
    return tuple(
        ExamplePredictions(**scalars, records=records, keys=keys, labels=labels, classes=classes, probabilities=probabilities)
    )


def _scalars(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """Return the fields of ExamplePredictions that are no columns, from the metadata of a file."""
    _check(metadata.keys() == {METADATA_KEY}, "it does not say which model and data it is of")
    scalars = json.loads(metadata[METADATA_KEY])
    fields = {"step": int, "params_sha256": str, "data": str, "class_names": list}
    _check(isinstance(scalars, dict) and scalars.keys() == fields.keys(), "its description is damaged")
    _check(all(type(scalars[name]) is kind for name, kind in fields.items()), "its description is damaged")
    _check(scalars["step"] >= 0 and bool(re.fullmatch("[0-9a-f]{64}", scalars["params_sha256"])), "its description is damaged")
    names = from_json(scalars["class_names"])
    _check(1 <= len(names) <= MAX_CLASSES, f"it has {len(names)} classes")
    return scalars | {"class_names": names}


def _check_columns(schema: Any, num_answers: int) -> int:
    """Return the number of columns of labels. Raise ValueError unless the columns are those of a file of predictions."""
    columns = [schema.column(index) for index in range(len(schema.names))]
    num_labels = sum(column.name.startswith("label_") for column in columns)
    expected = [("record", "INT64", "NONE"), ("key", "BYTE_ARRAY", "STRING")]
    numbered = (("label", "INT32", num_labels), ("class", "INT32", num_answers), ("probability", "FLOAT", num_answers))
    for prefix, kind, count in numbered:
        expected += [(f"{prefix}_{number}", kind, "NONE") for number in range(1, count + 1)]
    _check([(c.path, c.physical_type, c.logical_type.type) for c in columns] == expected, "its columns are others")
    _check(not any(c.max_definition_level or c.max_repetition_level for c in columns), "its columns have empty values")
    return num_labels


def _check(condition: bool, reason: str) -> None:
    """Raise ValueError with a reason unless the condition holds."""
    if not condition:
        raise ValueError(reason)


if __name__ == "__main__":
    serve(read)
