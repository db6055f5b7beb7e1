"""Datasets that TFDS prepared as ArrayRecord files, by record number. TensorFlow is not used to read them.

Only the features that are asked for are decoded: Pets has a mask beside each image, CLEVR a scene.
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from mixer_jax.classes import MAX_CLASSES
from mixer_jax.data.sources.image_files import as_os_error
from mixer_jax.data.sources.source import Record
from mixer_jax.errors import UserError
from mixer_jax.storage import open_regular

NAME = re.compile(r"[a-z0-9_]+(/[^/:=,.][^/:=,]*)?(:[0-9.*]+)?")
OWN_FEATURE = re.compile(r"tensorflow_datasets\.core\.features\.\w+\.\w+")
CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # of features.json; the last in files of before 2022
FILE_OF_DATASET = re.compile(r".*\.(json|txt|array_record.*)")
MAX_DESCRIPTION_BYTES = 2**26  # of a file that TFDS reads whole; the names of 21 843 classes have 0.5 MB
LABEL_FEATURES = ("label", "labels", "real_label")  # the last is that of imagenet2012_real (arXiv 2006.07159)


class TfdsSource:
    """`tfds:NAME`: features "image" and one of LABEL_FEATURES, which is a class or a sequence of them."""

    def __init__(self, name: str, split: str, data_dir: str, max_labels: int):
        self._name = f"tfds:{name} {split}"
        features = open_builder(name, data_dir).info.features
        self._label = next((key for key in LABEL_FEATURES if key in features), "")
        if "image" not in features or not self._label:
            raise UserError(f"{name} has the features {', '.join(features)}: image classification needs image and label(s).")
        self._examples = Examples(name, split, data_dir, {"image": True, self._label: True})
        label_feature = getattr(features[self._label], "feature", features[self._label])
        if label_feature.num_classes > MAX_CLASSES:  # TFDS makes a name for each
            raise UserError(f"{name} declares {label_feature.num_classes} classes: at most {MAX_CLASSES} are possible.")
        self.num_classes, self.class_names = label_feature.num_classes, tuple(label_feature.names)
        self.max_labels = max_labels

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        example = self._examples[index]
        return Record(example["image"], self._labels_of(example))

    def labels(self, index: int) -> tuple[int, ...]:
        return self._labels_of(self._examples[index])

    def _labels_of(self, example: dict) -> tuple[int, ...]:
        return tuple(int(label) for label in np.atleast_1d(example[self._label]))

    def locate(self, index: int) -> str:
        return f"{self._name} record {index}"

    def identity(self) -> str:
        return self._examples.full_name


class Examples:
    """Some features of a split's examples: {feature: value}, the image as its file's bytes.

    `features` has their names and True or, for a sequence of several values, the names of those that are needed. Raises UserError
    saying what is missing and what mends it: a dataset, version, split or slice that is not there, or one in TFRecord files.
    """

    def __init__(self, name: str, split: str, data_dir: str, features: Mapping[str, bool | Collection[str]]):
        import tensorflow_datasets as tfds  # heavy, and only some runs need it

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
        self.full_name = builder.info.full_name  # with config and version
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
    """Raise UserError when TFDS could not read a file of a prepared dataset to its end, or would run code that a file names."""
    for file in (*folder.glob("*/*"), *folder.glob("*/*/*")):
        if "://" not in str(file) and FILE_OF_DATASET.fullmatch(file.name):
            with open_regular(file) as opened:
                size = os.fstat(opened.fileno()).st_size
            if file.suffix in (".json", ".txt") and size > MAX_DESCRIPTION_BYTES:
                raise UserError(f"{file} has {size} bytes; at most {MAX_DESCRIPTION_BYTES} are read. Prepare the dataset anew.")
        if file.name == "features.json":
            _check_features(file)


def _check_features(file: epath.Path) -> None:
    """Raise UserError when features.json names a class that is not TFDS's own: TFDS would import its module."""
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
    """Yield every name of a Python class in features.json: a value of one of CLASS_KEYS, also in JSON within a text."""
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

    Raises UserError when it is unknown or not prepared, and when its files ask TFDS to import code that is not TFDS's own.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils.file_utils import list_data_dirs

    if not NAME.fullmatch(name):  # others, such as huggingface:NAME, are fetched with their code
        raise UserError(f"tfds:{name} must be tfds:NAME[/CONFIG][:VERSION], NAME in small letters, digits and _.")
    for folder in list_data_dirs(data_dir or None):
        _check_files(epath.Path(folder).expanduser() / re.split("[/:]", name)[0])
    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.registered.DatasetNotFoundError as error:
        raise UserError(f"TFDS knows no dataset {name!r}, and none of that name lies in its data folder.") from error
    except (AssertionError, ValueError) as error:  # a version or config that it has not, a name that is none
        raise UserError(f"TFDS cannot make {name!r}, which must be NAME[/CONFIG][:VERSION]: {error}") from error
    if not builder.info.splits:
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"{name} is not prepared in {builder.data_path}. Set data.data_dir to where it lies, or prepare it (with what "
            f"requirements-prepare.txt has): tfds build {name} --file_format=array_record{where}"
        )
    return builder
