"""Files of predictions in Parquet."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hostile.builders import Build, after, endless

from mixer_jax.evaluation.example_predictions import METADATA_KEY, ExamplePredictions, write_predictions

NAME = "dev.parquet"
FACTS = {"step": 4, "params_sha256": "0" * 64, "data": "split 'test'", "class_names": ["a"]}


def sound(folder: Path) -> None:
    count = 100
    numbers = np.zeros((count, 1), np.int32)
    keys, shares = [f"a/{number}.png" for number in range(count)], np.ones((count, 1), np.float32)
    write_predictions(
        folder / NAME,
        ExamplePredictions(**FACTS, records=np.arange(count), keys=keys, labels=numbers, classes=numbers, probabilities=shares),
    )


def rows(count: int = 1, keys: pa.Array | None = None, facts: bytes | None = None, **options) -> Build:
    """Return a builder of a file of `count` examples of one class, written with `options` of Parquet."""

    def build(folder: Path) -> None:
        columns = {
            "record": pa.array(np.zeros(count, np.int64)),
            "key": pa.array([""], pa.string()).take(pa.array(np.zeros(count, np.int32))) if keys is None else keys,
            "class_1": pa.array(np.zeros(count, np.int32)),
            "probability_1": pa.array(np.zeros(count, np.float32)),
        }
        schema = pa.schema([pa.field(name, column.type, nullable=False) for name, column in columns.items()])
        with pq.ParquetWriter(folder / NAME, schema, store_schema=False, **{"compression": "zstd"} | options) as writer:
            writer.write_table(pa.table(columns, schema=schema), row_group_size=count)
            writer.add_key_value_metadata({METADATA_KEY: json.dumps(FACTS).encode() if facts is None else facts})

    return build


def a_key_for_all(folder: Path) -> None:
    """Write 100 kB once, as the key of 20 000 examples."""
    rows(20_000, pa.array(["x" * 100_000] * 20_000), use_dictionary=["key"], compression="none")(folder)


def deep_columns(folder: Path) -> None:
    kind = pa.int32()
    for _ in range(200):
        kind = pa.struct([("a", kind)])
    pq.write_table(pa.table({"record": pa.array([None], kind)}), folder / NAME)


def half(folder: Path) -> None:
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[: len(content) // 2])


PREDICTIONS = after(
    sound,
    {
        "half of it": half,
        "four million examples in a few bytes": rows(2**22),
        "a key of 300 MB in a few bytes": rows(1, pa.array(["x" * 300_000_000]), use_dictionary=False),
        "a key of 100 kB for 20 000 examples": a_key_for_all,
        "deep columns": deep_columns,
        "deep facts": rows(facts=b"[" * 10**6),
        "a million and one classes": rows(facts=json.dumps(FACTS | {"class_names": ["a"] * 1_000_001}).encode()),
        "a step of a million digits": rows(facts=json.dumps(FACTS).replace("4", "4" * 10**6, 1).encode()),
        **endless(NAME),
    },
)
