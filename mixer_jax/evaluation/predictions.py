"""Writes the predictions of a model for image files to a CSV file, or prints them: `python -m mixer_jax predict`."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixer_jax.classes import label
from mixer_jax.data.sources.unlabeled import find_image_files
from mixer_jax.errors import UserError, as_message
from mixer_jax.evaluation.classifier import Classifier, Prediction, load_classifier
from mixer_jax.evaluation.example_predictions import TOP_CLASSES
from mixer_jax.hosts.compiled_programs import keep_compiled_programs
from mixer_jax.records import Progress
from mixer_jax.storage import write_whole
from mixer_jax.text_table import format_table

SHOWN_UNREADABLE = 3  # The last message names this many unreadable images.
TABLE_LINES = 50  # The table is printed in parts of this many lines. The columns of a part line up.


def predict(weights: str, paths: Sequence[str], out: str) -> None:
    """Write the most likely classes of every image to a CSV file, or print them.

    Raises UserError if `out` cannot be made, and also at the end, after all predictions are written, if images could not be read.

    Args:
      weights: anything that `load_weights` reads, such as a run's folder, one of its checkpoints/STEP, or a file of weights.
      paths: image files, and folders that hold images at any depth.
      out: the CSV file. It must not exist. If it is empty or "-", a table is printed.
    """
    if out in ("", "-"):
        out = ""
    elif os.path.lexists(out):
        raise UserError(f"{out} exists already: choose another name, or remove it.")
    elif not Path(out).parent.is_dir():
        raise UserError(f"There is no folder {Path(out).parent} for {Path(out).name}: make it, or choose another.")
    files = find_image_files(paths)
    keep_compiled_programs()
    classifier = load_classifier(weights)
    for note in classifier.notes:
        print(as_message(note), file=sys.stderr)
    unreadable: list[str] = []
    predictions = _with_progress(classifier.predict_files(files, TOP_CLASSES), files, unreadable)
    if out:
        write_csv(Path(out), classifier, files, predictions)
        print(f"{out}: {len(files) - len(unreadable)} images, {classifier.loss} over {len(classifier.class_names)} classes.")
    else:
        print_table(classifier, files, predictions)
    if unreadable:
        some = "; ".join(unreadable[:SHOWN_UNREADABLE]) + ("; ..." if len(unreadable) > SHOWN_UNREADABLE else "")
        raise UserError(f"{len(unreadable)} of {len(files)} images cannot be read: {some}. The others are complete.")


def write_csv(file: Path, classifier: Classifier, files: Sequence[str], predictions: Iterator[Prediction]) -> None:
    r"""Write a line for each image: file, class_1, probability_1, ..., unreadable.

    The column `unreadable` has the reason why an image has no classes. The file is encoded in UTF-8. A byte of a file's name that
    is not valid UTF-8 is written as \udcXX.
    """
    count = min(TOP_CLASSES, len(classifier.class_names))
    columns = [f"{name}_{rank}" for rank in range(1, count + 1) for name in ("class", "probability")]
    with write_whole(file) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as opened:
        table = csv.writer(opened)
        table.writerow(["file", *columns, "unreadable"])
        for prediction in predictions:
            pairs = zip(prediction.classes, prediction.probabilities, strict=True)
            cells = [cell for number, share in pairs for cell in (label(classifier.class_names[number]), f"{share:.6g}")]
            table.writerow([files[prediction.image], *(cells or [""] * len(columns)), prediction.unreadable])


def print_table(classifier: Classifier, files: Sequence[str], predictions: Iterator[Prediction]) -> None:
    """Print a line for each image, TABLE_LINES at a time, while later images are still computed."""
    rows: list[tuple[str, ...]] = []
    for prediction in predictions:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        cells = [f"{share:6.1%} {label(classifier.class_names[number])}" for number, share in pairs]
        rows.append((files[prediction.image], *(cells or [f"unreadable: {prediction.unreadable}"])))
        if len(rows) == TABLE_LINES or prediction.image == len(files) - 1:
            print(format_table(rows, "<"), flush=True)
            rows.clear()


def _with_progress(predictions: Iterator[Prediction], files: Sequence[str], unreadable: list[str]) -> Iterator[Prediction]:
    """Yield the predictions, show the progress, and append the unreadable images with their reasons to `unreadable`."""
    progress = Progress(len(files), 0, unit="image")
    for prediction in predictions:
        if prediction.unreadable:
            unreadable.append(f"{files[prediction.image]} ({prediction.unreadable})")
        progress.update(prediction.image + 1)
        yield prediction
    progress.close()
