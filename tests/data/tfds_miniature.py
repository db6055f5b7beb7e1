"""Miniatures of datasets that TFDS knows: its own features and writer, official sizes, few examples. No test stands here."""

import json
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

EXAMPLES = 12


def make(directory: Path, name: str, sizes: dict[str, int], lengths: range = range(3, 11), **given) -> Path:
    """Prepares NAME[/CONFIG] in `directory` as `tfds build --file_format=array_record` does, without TensorFlow.

    Each split has EXAMPLES at its start, and claims to have as many as `sizes` says. Features are drawn from their type and the
    example's number, sequences with one of `lengths`; `given` features are functions of the number.
    """
    official = tfds.builder(name, data_dir=directory)
    features = official.info.features
    name, _, config = name.partition("/")

    class Miniature(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = official.version
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config, version=official.version)] if config else []
        url_infos = None  # nothing to download

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in sizes}

        def _generate_examples(self):
            for number in range(EXAMPLES):
                yield number, draw(features, number, lengths) | {key: function(number) for key, function in given.items()}

    Miniature.name = name
    builder = Miniature(data_dir=directory, file_format="array_record")
    builder.download_and_prepare()
    claim(Path(builder.data_path) / "dataset_info.json", sizes)
    return directory


def claim(file: Path, sizes: dict[str, int]) -> None:
    """Gives the splits of a dataset_info.json another number of examples: what is read from there on is not in the files."""
    info = json.loads(file.read_text())
    for split in info["splits"]:
        split["shardLengths"] = [str(sizes[split["name"]])]
    file.write_text(json.dumps(info))


def draw(feature, number: int, lengths: range):
    """A value for a feature of TFDS."""
    kinds = tfds.features
    if isinstance(feature, kinds.Image):
        height, width, channels = (side or 16 for side in feature.shape)
        value = number % 2 if channels == 1 else 10 * number
        return cv2.imencode(".png", np.full((height, width, channels), value, np.uint8))[1].tobytes()
    if isinstance(feature, kinds.BBoxFeature):
        return kinds.BBox(0.0, 0.0, 1.0, 1.0)
    if isinstance(feature, kinds.ClassLabel):
        return number % feature.num_classes
    if isinstance(feature, kinds.Text):
        return f"text {number}"
    if isinstance(feature, kinds.FeaturesDict):
        return {key: draw(inner, number, lengths) for key, inner in feature.items()}
    if isinstance(feature, kinds.Sequence):
        return [draw(feature.feature, number + place, lengths) for place in range(lengths[number % len(lengths)])]
    return np.full(feature.shape, number, feature.np_dtype)
