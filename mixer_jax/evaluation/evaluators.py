"""Makes the evaluators that `config.evals` describes. Their data are opened before any device is touched."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.classes import Names, has_names, map_classes
from mixer_jax.data.images.augment import HostTransform, Transform, eval_transform, unchanged
from mixer_jax.data.sources.registry import has_labels_apart, open_source
from mixer_jax.data.sources.relabeled import Relabeled
from mixer_jax.data.sources.source import Source, source_facts
from mixer_jax.data.stream.loader import check_labels, eval_batches
from mixer_jax.errors import UserError
from mixer_jax.evaluation.answers import Answers, Evaluation, Figures
from mixer_jax.evaluation.classification import Classification, EvalLoss
from mixer_jax.evaluation.example_predictions import ExamplePredictions, write_predictions
from mixer_jax.evaluation.fewshot import FewShot, ShotsCheck, check_shots, first_labels
from mixer_jax.evaluation.predict import CheckStop, Predict, never_stop
from mixer_jax.options import DATA_FIELDS, EVALUATORS
from mixer_jax.parallel import Batch, Params, is_writer, local_batch_indices, to_global, to_host
from mixer_jax.records import predictions_file
from mixer_jax.storage import refuse_links

OPTIONS_WITHOUT_EFFECT = ("every", "batch_size", "max_predictions")  # These options of an evaluator do not change its figures.


class Evaluator(Protocol):
    """A function of parameters that returns figures."""

    def __call__(self, params: Params, check_stop: CheckStop = never_stop) -> Evaluation:
        """Return the figures of a model with these parameters. `check_stop` is called between batches."""


SaveAnswers = Callable[[str, Answers, int, str], str]
"""A function of (evaluator's name, answers, step, params_sha256) that writes a file and returns its path in the run's folder."""


def run_evaluators(
    evaluators: dict[str, Evaluator], params: Params, step: int, save_answers: SaveAnswers, check_stop: CheckStop = never_stop
) -> dict[str, Any]:
    """Run the evaluators, print a line for each, and write the answers to each example.

    Args:
      evaluators: the evaluators by name.
      params: the parameters to evaluate.
      step: the training step that they are from.
      save_answers: writes the answers of an evaluator that returns some.
      check_stop: is called between two batches.

    Returns:
      The content of results.json: {"step": step, "params_sha256": digest, "evals": {name: figures}, "predictions": {name: file}}.
    """
    digest = params_sha256(to_host(params))
    evals, files = {}, {}
    for name, evaluator in evaluators.items():
        evals[name], answers = evaluator(params, check_stop)
        if answers is not None:
            files[name] = save_answers(name, answers, step, digest)
        if is_writer():
            tqdm.write(f"step {step}  {name}: {figures_text(evals[name])}")
    return {"step": step, "params_sha256": digest, "evals": evals, "predictions": files}


def figures_text(figures: Figures) -> str:
    """Return the figures as one line of text, without the lists. Integers are written in full, other numbers to four digits."""
    numbers = {key: value for key, value in figures.items() if not isinstance(value, list)}
    return ", ".join(f"{key} {value if isinstance(value, int) else f'{value:.4g}'}" for key, value in numbers.items())


class Examples(NamedTuple):
    """All examples of a source, with what is needed to make batches of them.

    Attributes:
      source: the examples, with their classes numbered as the evaluator needs them.
      transform: what makes an image for the model from an image of the source.
      loader: config.loader, how the examples are read and decoded.
      batch_size: the number of examples in a global batch.
      class_names: the names of the classes with these numbers. If the model does not name its classes, the data may do so.
      present: the numbers of the model's classes that the source has; None if it has all of them.
      note: a sentence about the classes for the user, or "".
    """

    source: Source
    transform: Transform
    loader: ConfigDict
    batch_size: int
    class_names: Names
    present: tuple[int, ...] | None = None
    note: str = ""

    def batches(self, mesh: Mesh) -> Iterator[Batch]:
        """Yield the examples in order, in global batches on the mesh."""
        indices = local_batch_indices(mesh, self.batch_size)
        for batch in eval_batches(self.source, self.transform, self.loader, batch_size=self.batch_size, batch_indices=indices):
            yield to_global(batch, mesh)


def open_examples(
    config: ConfigDict, class_names: Names, names_owner: str, host_transform: HostTransform = unchanged
) -> dict[str, dict[str, Examples]]:
    """Open the data of all evaluators. No device is touched.

    Args:
      config: the whole config.
      class_names: the names of the model's classes.
      names_owner: what these names belong to, for messages.
      host_transform: what the host does to an image after resizing and cropping, as `models.registry.host_transform` returns it.

    Returns:
      {name of the evaluator: {field: examples}}, where the field is "data" or, for few-shot evaluators, "train" and "test". The
      examples' classes have the model's numbers or, for few-shot evaluators, the numbers that they have in "train".

    Raises:
      UserError: the data do not exist, or have classes that the model does not know. Also for a class with fewer examples than
        few-shot evaluation needs, if the labels can be read without the images; the others are checked by `check_few_shots`.
    """
    opened = {}
    for name, evaluator in config.evals.items():
        transform = eval_transform(evaluator.resize, evaluator.resize_size, config.image_size, host_transform)
        batch_size = evaluator.batch_size or config.batch_size
        sources = {field: _open(evaluator[field], f"config.evals.{name}.{field}") for field in DATA_FIELDS[evaluator.kind]}
        target_names, target_owner = class_names, names_owner
        if evaluator.kind == "fewshot":  # It uses the model's features only, so the model's classes do not matter.
            target_names, target_owner = sources["train"].class_names, f"config.evals.{name}.train"
        opened[name] = {
            field: _number_classes(
                Examples(source, transform, config.loader, batch_size, source.class_names),
                f"config.evals.{name}.{field}",
                target_names,
                target_owner,
            )
            for field, source in sources.items()
        }
    check_few_shots(config.evals, opened, within_records=False)
    return opened


def check_few_shots(evals: ConfigDict, examples: dict[str, dict[str, Examples]], *, within_records: bool) -> None:
    """Raise UserError if a class has fewer examples than a few-shot evaluator needs. All labels of its data are read.

    If `within_records`, only those evaluators are checked whose labels lie in the same record as the image, so that all records
    must be read, as for an evaluation. Otherwise only the other evaluators are checked, whose labels are read without images.
    """
    for name, evaluator in evals.items():
        if evaluator.kind != "fewshot":
            continue
        are_labels_apart = has_labels_apart(evaluator.train) and has_labels_apart(evaluator.test)
        if are_labels_apart == within_records:
            continue
        train, test = (examples[name][field].source for field in ("train", "test"))
        if within_records and is_writer():
            print(f"Reading the labels of config.evals.{name}, once in a run: {len(train) + len(test)} records.")
        _shots_check(name, evaluator, train)(first_labels(train), first_labels(test))


def _open(data: ConfigDict, path: str) -> Source:
    """Open a source, and check that its first record has labels, because test splits are often published without them."""
    source = open_source(data, path)
    check_labels(source, 0, source.labels(0))
    return source


def _number_classes(examples: Examples, path: str, class_names: Names, names_owner: str) -> Examples:
    """Return the examples with their classes numbered as in `class_names`. Raises UserError for a class that is not there.

    Args:
      examples: the examples, with the class numbers of their source.
      path: the path of their options in the config, for messages.
      class_names: the names of the classes in the new order.
      names_owner: what these names belong to, for messages.
    """
    classes = map_classes(examples.source.class_names, path, class_names, names_owner)
    if classes.is_identity and len(classes.numbers) == len(class_names):
        return examples._replace(note=classes.note, class_names=class_names if has_names(class_names) else examples.class_names)
    present = tuple(sorted(classes.numbers)) if len(classes.numbers) < len(class_names) else None
    source = Relabeled(examples.source, classes.numbers, class_names)
    return examples._replace(source=source, class_names=class_names, present=present, note=classes.note)


def _shots_check(name: str, evaluator: ConfigDict, train: Source) -> ShotsCheck:
    """Return `fewshot.check_shots` for an evaluator, as a function of (train_labels, test_labels)."""
    shots, path = max(evaluator.shots), f"config.evals.{name}"
    return functools.partial(check_shots, shots=shots, class_names=train.class_names, path=path)


def check_batches(examples: dict[str, dict[str, Examples]], mesh: Mesh) -> None:
    """Raise UserError if the batches of an evaluator cannot be split over the devices of the mesh."""
    for name, parts in examples.items():
        batch_size = max(part.batch_size for part in parts.values())
        if batch_size % mesh.size:
            raise UserError(
                f"config.evals.{name} evaluates {batch_size} images at once: that must be a multiple of {mesh.size}, the number "
                f"of devices. Set --config.evals.{name}.batch_size={-(-batch_size // mesh.size) * mesh.size}."
            )


def sources_of(examples: dict[str, dict[str, Examples]]) -> dict[str, Source]:
    """Return the sources that `open_examples` opened, by their paths in the config, such as "evals.dev.data"."""
    return {f"evals.{name}.{field}": part.source for name, parts in examples.items() for field, part in parts.items()}


def describe_evaluators(config: ConfigDict, examples: dict[str, dict[str, Examples]]) -> dict[str, dict[str, Any]]:
    """Return, for each evaluator, everything but the parameters that its figures depend on: its options and its data's records.

    Left out are the directory of the data, how often the evaluator runs, and its batch size, which do not change the figures, and
    newer options at the value that describes what evaluators did before. All values are such as JSON can store and give back
    unchanged, so that they can be compared with recorded ones.
    """
    facts = source_facts(sources_of(examples))

    def describe(name: str, option: str, value: Any) -> Any:
        is_data = option in examples[name]
        return f"split {value['split']!r}, {facts[f'evals.{name}.{option}']}" if is_data else value

    def options_of(evaluator: ConfigDict) -> dict[str, Any]:
        before = {row.name: row.before for row in EVALUATORS[evaluator.kind] if row.before is not None}
        values = json.loads(evaluator.to_json())
        is_left_out = {name: name in OPTIONS_WITHOUT_EFFECT or before.get(name) == value for name, value in values.items()}
        return {name: value for name, value in values.items() if not is_left_out[name]}

    return {
        name: {"image_size": config.image_size}
        | {option: describe(name, option, value) for option, value in options_of(evaluator).items()}
        for name, evaluator in config.evals.items()
    }


def make_evaluators(
    evals: ConfigDict,
    examples: dict[str, dict[str, Examples]],
    predict: Predict,
    loss: EvalLoss,
    loss_kind: str,
    mesh: Mesh,
    *,
    read_labels: bool = False,
) -> dict[str, Evaluator]:
    """Return the evaluators by name, and print the notes on their classes.

    Args:
      evals: config.evals.
      examples: the data of the evaluators, as `open_examples` returns them.
      predict: the model.
      loss: the loss of each example.
      loss_kind: config.loss.kind, which says what the probabilities of classes are.
      mesh: the devices.
      read_labels: whether to check that few-shot evaluators have enough examples of each class also if that means to read
        labels that lie in the same records as the images.

    Raises:
      UserError: a class has fewer examples than a few-shot evaluator needs.
    """
    if is_writer():
        for note in dict.fromkeys(part.note for parts in examples.values() for part in parts.values() if part.note):
            print(note)
    if read_labels:
        check_few_shots(evals, examples, within_records=True)

    def make(name: str) -> Evaluator:
        if evals[name].kind == "classification":
            data = examples[name]["data"]
            answered_loss = loss_kind if writes_predictions(evals[name], examples[name]) else ""
            return Classification(data.batches, predict, loss, mesh, data.present, answered_loss)
        train, test = examples[name]["train"], examples[name]["test"]
        check = _shots_check(name, evals[name], train.source)

        def train_batches(source: Source, mesh: Mesh) -> Iterator[Batch]:
            return train._replace(source=source).batches(mesh)

        return FewShot(evals[name], train.source, train_batches, test.batches, predict, mesh, check)

    return {name: make(name) for name in evals}


def writes_predictions(evaluator: ConfigDict, examples: dict[str, Examples]) -> bool:
    """Return whether an evaluator of config.evals with these examples writes its predictions for each of them."""
    return evaluator.kind == "classification" and len(examples["data"].source) <= evaluator.max_predictions


def answers_writer(workdir: Path, examples: dict[str, dict[str, Examples]], described: dict[str, dict[str, Any]]) -> SaveAnswers:
    """Return the function that writes the answers of an evaluator as predictions/NAME.parquet, in place of earlier ones.

    Args:
      workdir: the folder of the run.
      examples: the data of the evaluators, as `open_examples` returns them.
      described: what `describe_evaluators` returns.
    """

    def write(name: str, answers: Answers, step: int, digest: str) -> str:
        data = examples[name]["data"]
        records = np.arange(len(data.source))
        keys = [data.source.key(index) for index in range(len(records))]
        labels, probabilities, classes = (array[: len(records)] for array in answers)
        file = predictions_file(workdir, name)
        refuse_links(file.parent)
        file.parent.mkdir(exist_ok=True)
        write_predictions(
            file,
            ExamplePredictions(
                step, digest, described[name]["data"], data.class_names, records, keys, labels, classes, probabilities
            ),
        )
        return str(file.relative_to(workdir))

    return write
