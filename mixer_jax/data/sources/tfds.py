"""The source `tfds:NAME`: datasets that TFDS prepared as ArrayRecord files. TensorFlow is not used to read them.

Only the features that are needed are decoded. For example, the mask beside each image of Pets is not decoded.
"""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from mixer_jax.classes import MAX_CLASSES
from mixer_jax.data.sources.image_files import as_os_error
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError
from mixer_jax.storage import check_regular

NAME = re.compile(r"[a-z0-9_]+(/[^/:=,.][^/:=,]*)?(:[0-9.*]+)?")
OWN_FEATURE = re.compile(r"tensorflow_datasets\.core\.features\.\w+\.\w+")
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # Keys of features.json; files from before 2022 have the last.
FILE_OF_DATASET = re.compile(r".*\.(json|txt|array_record.*)")
MAX_DESCRIPTION_BYTES = 2**26  # TFDS reads these files completely. The names of 21 843 classes have 0.5 MB.
LABEL_FEATURES = ("label", "labels", "real_label")  # The last is the feature of imagenet2012_real (arXiv 2006.07159).


class TfdsSource:
    """The source `tfds:NAME`. It reads the feature "image" and one of LABEL_FEATURES, a class or a sequence of classes."""

    def __init__(self, name: str, split: str, data_dir: str, max_labels: int):
        self._name = f"tfds:{name} {split}"
        features = open_builder(name, data_dir).info.features
        self._label = next((key for key in LABEL_FEATURES if key in features), "")
        if "image" not in features or not self._label:
            raise UserError(f"{name} has the features {', '.join(features)}: image classification needs image and label(s).")
        self._examples = Examples(name, split, data_dir, {"image": True, self._label: True})
        label_feature = getattr(features[self._label], "feature", features[self._label])
        if label_feature.num_classes > MAX_CLASSES:  # Otherwise TFDS would make this many names.
            raise UserError(f"{name} declares {label_feature.num_classes} classes: at most {MAX_CLASSES} are possible.")
        self.num_classes, self.class_names = label_feature.num_classes, tuple(label_feature.names)
        self.max_labels = max_labels

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        example = self._examples[index]
        return Record(example["image"], self._labels_of(example))

    def labels(self, index: int) -> tuple[int, ...]:
        """Return the labels of a record. This reads the whole record, including the image."""
        return self._labels_of(self._examples[index])

    def _labels_of(self, example: dict) -> tuple[int, ...]:
        return tuple(int(label) for label in np.atleast_1d(example[self._label]))

    def locate(self, index: int) -> str:
        """Return the dataset, the split and the number of a record."""
        return f"{self._name} record {index}"

    def key(self, index: int) -> str:
        """Return the number of a record."""
        return str(index)

    def identity(self) -> str:
        """Return the name of the dataset, with its config and version."""
        return self._examples.full_name


class Examples:
    """The examples of a split, with some of their features, as {feature: value}. The value of an image is the file's bytes."""

    def __init__(self, name: str, split: str, data_dir: str, features: Mapping[str, bool | Collection[str]]):
        """Open a split of a prepared dataset.

        Args:
          name: the name of the dataset, NAME[/CONFIG][:VERSION].
          split: the name of the split, a slice of it, or a sum of such.
          data_dir: the directory of the prepared data, or "" for TFDS's default.
          features: the features to read: {name: True} or, for a sequence of dicts, {name: names of the parts to read}.

        Raises:
          UserError: the dataset, version, split or slice does not exist, or is not in ArrayRecord files. The message says what
            to do.
        """
        import tensorflow_datasets as tfds  # It is slow to import, and only some runs need it.

        builder = open_builder(name, data_dir)
        try:
            self._records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        except NotImplementedError as error:
            copy = str(builder.data_path).removesuffix(f"/{builder.info.full_name}") + "-array_record"
            raise UserError(
                f"{name} in {builder.data_path} is not in ArrayRecord files, which random access needs. Convert it (with what "
                f"requirements-prepare.txt has): tfds convert_format --dataset_version_dir={builder.data_path} "
                f"--out_dir={copy}/{builder.info.full_name} --out_file_format=array_record; then set data.data_dir={copy}"
            ) from error
        except (ValueError, KeyError) as error:
            known = ", ".join(f"{split} ({info.num_examples} examples)" for split, info in builder.info.splits.items())
            raise UserError(f"{name} has nothing in a split {split!r}: it has {known}, and slices of these.") from error
        self.full_name = builder.info.full_name  # It includes config and version.
        all_features = builder.info.features
        self._features = tfds.features.FeaturesDict(
            {
                name: all_features[name]
                if parts is True
                else tfds.features.Sequence({part: all_features[name][part] for part in parts})
                for name, parts in features.items()
            }
        )
        self._decoders = {"image": tfds.decode.SkipDecoding()}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict:
        with as_os_error(self.full_name):
            record = self._records[index]
        return self._features.deserialize_example_np(record, decoders=self._decoders)


def _check_files(folder: epath.Path) -> None:
    """Raise UserError if a file of a prepared dataset is not a regular file, is too large, or names code that TFDS would run."""
    for file in (*folder.glob("*/*"), *folder.glob("*/*/*")):
        if "://" not in str(file) and FILE_OF_DATASET.fullmatch(file.name):
            check_regular(Path(file), MAX_DESCRIPTION_BYTES if file.suffix in (".json", ".txt") else math.inf)
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


def open_builder(name: str, data_dir: str):
    """Return TFDS's builder of a prepared dataset NAME[/CONFIG][:VERSION].

    Raises UserError if the dataset is unknown or not prepared, or if its files name code that is not TFDS's own.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils.file_utils import list_data_dirs

    if not NAME.fullmatch(name):  # For another name, such as huggingface:NAME, TFDS would download and run code.
        raise UserError(f"tfds:{name} must be tfds:NAME[/CONFIG][:VERSION], NAME in small letters, digits and _.")
    for folder in list_data_dirs(data_dir or None):
        _check_files(epath.Path(folder).expanduser() / re.split("[/:]", name)[0])
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
