"""The predictions of a model for each example of an evaluator, what follows from them for each class, and their Parquet file.

A file has a row for each example, in the order of the records, and these columns:

record            int64    the number of the record in the evaluator's data
key               string   what the data call this record, such as the name of its file
label_1, ...      int32    the numbers of the example's classes; -1 if it has fewer
class_1, ...      int32    the numbers of the (at most five) most likely classes, the most likely first
probability_1 ... float32  the probabilities of these classes: of softmax, or of sigmoid if the model was trained with it

Its metadata has, under the key METADATA_KEY, the other fields of `ExamplePredictions` as JSON. The columns are neither compressed
nor encoded by a dictionary, so that no more examples than its size allows can be in a file.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixer_jax.classes import Names
from mixer_jax.errors import UserError, as_message
from mixer_jax.storage import check_regular, json_text, write_whole
from mixer_jax.worker_process import WorkerError, WorkerProcess

TOP_CLASSES = 5  # An example gets this many classes, or all if there are fewer.
METADATA_KEY = b"mixer_jax.predictions"
MAX_FILE_BYTES = 2**31  # Ten million examples, the most that an evaluator writes, with keys of 100 bytes have 1.6 GB.
TIMEOUT_SECONDS = 100
NO_PREDICTIONS = (
    "there are no predictions for each example. They are written at each evaluation by evaluators of the kind classification "
    "with at most max_predictions examples. If a finished run lacks them, type its command again: it evaluates without training."
)


class ExamplePredictions(NamedTuple):
    """The predictions of a model for N examples of a split, each once, in the order of the records.

    Attributes:
      step: the training step of the parameters.
      params_sha256: the digest of the parameters, as in results.json.
      data: which split and which records the examples are, as results.json describes them.
      class_names: the names of the model's K classes, in the order of their numbers.
      records: int64 [N], the numbers of the records in the evaluator's data, ascending.
      keys: the N names that the data have for these records.
      labels: int32 [N, M], the numbers of the classes of each example, padded with -1.
      classes: int32 [N, T], the numbers of the most likely classes, the most likely first; T is min(TOP_CLASSES, K).
      probabilities: float32 [N, T], the probabilities of these classes.
    """

    step: int
    params_sha256: str
    data: str
    class_names: Names
    records: np.ndarray
    keys: list[str]
    labels: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray


class ClassAccuracy(NamedTuple):
    """The accuracy of each class: int64 [K] the number of its examples, and of those among them whose first answer is right."""

    examples: np.ndarray
    right: np.ndarray


def is_right(predictions: ExamplePredictions) -> np.ndarray:
    """Return bool [N], whether the most likely class is among the labels of an example, as for the top-1 accuracy.

    This is never so for examples without labels, which the accuracy does not count.
    """
    return (predictions.labels == predictions.classes[:, :1]).any(axis=1)


def accuracy_by_class(predictions: ExamplePredictions) -> ClassAccuracy:
    """Return the number of examples of each class, and how many of them are right.

    An example is right if the most likely class is among its labels, as for top-1 accuracy. An example with several labels counts
    for each of these classes, and an example without labels for none.
    """
    rows, labels = distinct_labels(predictions)
    count = len(predictions.class_names)
    right_labels = labels[is_right(predictions)[rows]]
    return ClassAccuracy(np.bincount(labels, minlength=count), np.bincount(right_labels, minlength=count))


def confusions(predictions: ExamplePredictions) -> list[tuple[int, int, int]]:
    """Return (true class, predicted class, number of examples) of all mistakes, the most frequent first.

    Only examples with exactly one label count.
    """
    count = len(predictions.class_names)
    true, predicted = _single_labels(predictions)
    pairs, counts = np.unique((true * count + predicted)[true != predicted], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        (pair // count, pair % count, number) for pair, number in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    ]


def confusion_matrix(predictions: ExamplePredictions) -> np.ndarray:
    """Return int64 [K, K], the number of examples of each true class (row) and predicted class (column).

    Only examples with exactly one label count. The matrix has K^2 numbers, so this is for small K.
    """
    count = len(predictions.class_names)
    true, predicted = _single_labels(predictions)
    return np.bincount(true * count + predicted, minlength=count * count).reshape(count, count)


def distinct_labels(predictions: ExamplePredictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of examples, ascending, and their labels, each pair once: two arrays int64 [pairs]."""
    rows, columns = np.nonzero(predictions.labels >= 0)
    count = len(predictions.class_names)
    pairs = np.unique(rows * count + predictions.labels[rows, columns])
    return pairs // count, pairs % count


def _single_labels(predictions: ExamplePredictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and the most likely classes of the examples that have exactly one label: two arrays int64."""
    rows, labels = distinct_labels(predictions)
    is_single = np.bincount(rows, minlength=len(predictions.records))[rows] == 1
    return labels[is_single], predictions.classes[rows[is_single], 0].astype(np.int64)


def write_predictions(file: Path, predictions: ExamplePredictions) -> None:
    r"""Write a file of predictions, whole or not at all. A byte of a key that is not valid UTF-8 is written as \udcXX."""
    import pyarrow as pa  # This import is slow, and only evaluations that write predictions need it.
    import pyarrow.parquet as pq

    scalars = predictions._asdict()
    columns = {"record": scalars.pop("records")}
    columns["key"] = [key.encode(errors="backslashreplace").decode() for key in scalars.pop("keys")]
    columns |= _numbered("label", scalars.pop("labels"))
    columns |= _numbered("class", scalars.pop("classes")) | _numbered("probability", scalars.pop("probabilities"))
    types = {"record": pa.int64(), "key": pa.string(), "label": pa.int32(), "class": pa.int32(), "probability": pa.float32()}
    schema = pa.schema([pa.field(name, types[name.partition("_")[0]], nullable=False) for name in columns])
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "store_schema": False}
    with write_whole(file) as temporary, pq.ParquetWriter(temporary, schema, write_page_checksum=True, **options) as writer:
        writer.write_table(pa.table(columns, schema=schema))
        writer.add_key_value_metadata({METADATA_KEY: json_text(scalars).encode()})


def read_predictions(file: Path) -> ExamplePredictions:
    """Return what `write_predictions` wrote. Raises UserError, in one line, for a file that is damaged or of another kind.

    The file may be anybody's. It is read by a process of its own (predictions_reader.py), whose memory and time are bounded,
    because a damaged file can end a process in Arrow, and a few compressed bytes can stand for gigabytes.
    """
    check_regular(file, MAX_FILE_BYTES)
    environment = {"PYTHONPATH": os.pathsep.join(map(str, sys.path)), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    process = WorkerProcess([sys.executable, "-m", "mixer_jax.evaluation.predictions_reader"], environment, TIMEOUT_SECONDS)
    try:
        return ExamplePredictions(*process.ask(str(file.absolute())))
    except WorkerError as error:
        reason = as_message(" ".join(str(error).split())[:300])
        raise UserError(f"{file} is damaged, or no file of predictions: it {reason}. Evaluate again to write it anew.") from error
    finally:
        process.close()


def _numbered(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of [N, M] as {"name_1": [N], ...}."""
    return {f"{name}_{number}": column for number, column in enumerate(values.T, 1)}
