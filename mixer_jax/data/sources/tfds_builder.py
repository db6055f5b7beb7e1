"""Opens what TFDS knows about a prepared dataset, after a look at its files: none may name code that is not TFDS's own."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from mixer_jax.errors import UserError
from mixer_jax.storage import check_regular

NAME = re.compile(r"[a-z0-9_]+(/[^/:=,.][^/:=,]*)?(:[0-9.*]+)?")
OWN_FEATURE = re.compile(r"tensorflow_datasets\.core\.features\.\w+\.\w+")
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # Keys of features.json; files from before 2022 have the last.
FILE_OF_DATASET = re.compile(r".*\.(json|txt|array_record.*)")
DESCRIPTIONS = (".json", ".txt")
MAX_DESCRIPTION_BYTES = 2**26  # TFDS reads these files completely. The names of 21 843 classes have 0.5 MB.


def open_builder(name: str, data_dir: str):
    """Return TFDS's builder of a prepared dataset NAME[/CONFIG][:VERSION].

    Raises UserError if the dataset is unknown or not prepared, or if its files name code that is not TFDS's own.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils.file_utils import list_data_dirs

    directory = directory_of(name)
    for folder in list_data_dirs(data_dir or None):
        _check_files(epath.Path(folder).expanduser() / directory)
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise UserError(f"TFDS knows no dataset {name!r}, and none of that name lies in its data folder.") from error
    except (AssertionError, ValueError) as error:  # The version or the config does not exist, or the name is not valid.
        raise UserError(f"TFDS cannot make {name!r}, which must be NAME[/CONFIG][:VERSION]: {error}") from error
    if not builder.info.splits:
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"{name} is not prepared in {builder.data_path}. Set data.data_dir to where it lies, or prepare it (with what "
            f"requirements-prepare.txt has): tfds build {name} --file_format=array_record{where}"
        )
    return builder


def directory_of(name: str) -> str:
    """Return the name of the folder, in that of all prepared data, of a dataset NAME[/CONFIG][:VERSION], with all its versions.

    Raises UserError for another name, such as huggingface:NAME, for which TFDS would download and run code.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"tfds:{name} must be tfds:NAME[/CONFIG][:VERSION], NAME in small letters, digits and _.")
    return re.split("[/:]", name)[0]


def _check_files(folder: epath.Path) -> None:
    """Raise UserError if a file of a prepared dataset is not a regular file, is too large, or names code that TFDS would run."""
    for file in (*folder.glob("*/*"), *folder.glob("*/*/*")):
        if "://" not in str(file) and FILE_OF_DATASET.fullmatch(file.name):
            check_regular(Path(file), MAX_DESCRIPTION_BYTES if file.suffix in DESCRIPTIONS else math.inf)
        if file.name == "features.json":
            _check_features(file)


def _check_features(file: epath.Path) -> None:
    """Raise UserError if features.json names a class that is not TFDS's own, because TFDS would import its module."""
    try:
        foreign = [name for name in _feature_classes(json.loads(file.read_text())) if not OWN_FEATURE.fullmatch(name)]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}): prepare the dataset anew.") from error
    if foreign:
        raise UserError(
            f"{file} names the class {foreign[0][:100]!r}, whose code TFDS would run: only TFDS's own features are read. If "
            "you trust who made the dataset, convert it to a folder of images."
        )


def _feature_classes(content: Any) -> Iterator[str]:
    """Yield every name of a Python class in features.json: all values of CLASS_KEYS, including those in JSON inside a string."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key in CLASS_KEYS and isinstance(value, str):
                yield value
            elif key == "json" and isinstance(value, str):
                yield from _feature_classes(json.loads(value))
            else:
                yield from _feature_classes(value)
    elif isinstance(content, list):
        for value in content:
            yield from _feature_classes(value)
