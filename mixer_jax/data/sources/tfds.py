"""The source `tfds:NAME`: datasets that TFDS prepared as ArrayRecord files. TensorFlow is not used to read them.

Only the features that are needed are decoded. For example, the mask beside each image of Pets is not decoded. tfds_copy.py copies
a dataset from a bucket.
"""

from collections.abc import Collection, Mapping

import numpy as np

from mixer_jax.classes import MAX_CLASSES
from mixer_jax.data.sources.image_files import as_os_error
from mixer_jax.data.sources.source import Record
from mixer_jax.data.sources.tfds_builder import open_builder
from mixer_jax.data.sources.tfds_copy import copy_dataset
from mixer_jax.errors import UserError

LABEL_FEATURES = ("label", "labels", "real_label")  # The last is the feature of imagenet2012_real (arXiv 2006.07159).


class TfdsSource:
    """The source `tfds:NAME`. It reads the feature "image" and one of LABEL_FEATURES, a class or a sequence of classes."""

    def __init__(self, name: str, split: str, data_dir: str, max_labels: int, local_copy: str = ""):
        """Open a split, which is first copied if it lies in a bucket (see `copy_dataset` about `local_copy`)."""
        data_dir = copy_dataset(name, split, data_dir, local_copy)
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
