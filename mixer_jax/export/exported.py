"""An exported StableHLO file as a network: it answers images as the model did from which it was made."""

import json
from pathlib import Path
from typing import Any

import jax

from mixer_jax import parallel
from mixer_jax.checkpoints.weights import SUFFIXES, preprocessing, value_range_note
from mixer_jax.classes import Names, from_json, unnamed
from mixer_jax.errors import UserError
from mixer_jax.evaluation.preprocessing import read_preprocessing, size_note
from mixer_jax.export.program import load_stablehlo
from mixer_jax.storage import open_regular

HEAD = b"PK\x03\x04"  # A zip begins with the header of its first member, whose name stands at byte 30.
NAME = slice(30, 37)


def is_exported(file: Path) -> bool:
    """Return whether a file is one that `export --format stablehlo` wrote: a zip whose first member is named "program".

    Raises UserError if it has the name of a file of weights: whoever loads weights does not expect that a program is run.
    """
    if not file.is_file():
        return False
    with open_regular(file) as opened:
        head = opened.read(NAME.stop)
    is_program = head.startswith(HEAD) and head[NAME] == b"program"
    if is_program and file.suffix in SUFFIXES:
        raise UserError(f"{file} holds a program, and not weights. If you trust its makers, rename it to NAME.stablehlo.")
    return is_program


class ExportedNetwork:
    """A model that was exported to a StableHLO file, on one device. The file is a program, which is run.

    The attributes are those of `evaluation.classifier.AnyNetwork`, and:

    Attributes:
      metadata: what the file states about itself.
      preprocessing: how an image becomes the pixels that the model sees.
    """

    def __init__(self, path: str):
        """Load the file. Raises UserError if it is damaged, or too new or too old for this jax."""
        self.path = path
        try:
            self.logits, self.metadata = load_stablehlo(path)
            image_size = int(self.metadata["image_size"])
            images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), "uint8")
            num_classes: int = jax.eval_shape(self.logits, images).shape[1]
        except Exception as error:  # A damaged file raises errors of many types: of zipfile, NumPy, flatbuffers and jax.
            raise UserError(
                f"{path} cannot be loaded as an exported program ({type(error).__name__}: {str(error)[:200]}). It is damaged, or "
                "was exported by another version of jax: export it again."
            ) from error
        self.stated_loss = str(self.metadata.get("loss", ""))
        self.class_names = self._read_names(num_classes)
        steps = self.recorded("preprocessing") or preprocessing(image_size)
        stated = read_preprocessing(steps, path)
        self.notes = [
            note for note in (size_note(stated, image_size, path), value_range_note(steps.get("value_range"), path)) if note
        ]
        self.preprocessing = stated.at_size(image_size)
        self.transform = self.preprocessing.transform()
        self.mesh = parallel.make_mesh(1, jax.devices()[:1])

    def recorded(self, name: str) -> Any:
        """Return the JSON value that the metadata hold under a name, or None. Raises UserError if it is not JSON."""
        try:
            return json.loads(self.metadata[name]) if name in self.metadata else None
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{self.path}: its metadata are damaged ({name}).") from error

    def _read_names(self, num_classes: int) -> Names:
        """Return the names of the classes that the file states, or else their numbers."""
        if (value := self.recorded("class_names")) is None:
            return unnamed(num_classes)
        try:
            names = from_json(value)
        except ValueError as error:
            raise UserError(f"{self.path}: what it says of its classes is damaged: {error}.") from error
        if len(names) != num_classes:
            raise UserError(f"{self.path} names {len(names)} classes and answers with {num_classes}: it is damaged or altered.")
        return names
