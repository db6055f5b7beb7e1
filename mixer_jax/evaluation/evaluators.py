"""From `config.evals` to evaluators: what each needs, opened before any device is touched."""

import functools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.classes import Names, map_classes
from mixer_jax.config import DATA_FIELDS
from mixer_jax.data.images.augment import HostTransform, Transform, eval_transform, unchanged
from mixer_jax.data.sources.registry import has_labels_apart, open_source
from mixer_jax.data.sources.relabeled import Relabeled
from mixer_jax.data.sources.source import Source, source_facts
from mixer_jax.data.stream.loader import check_labels, eval_batches
from mixer_jax.errors import UserError
from mixer_jax.evaluation.classification import Classification, EvalLoss
from mixer_jax.evaluation.fewshot import FewShot, ShotsCheck, check_shots, first_labels
from mixer_jax.evaluation.predict import CheckStop, Predict, go_on
from mixer_jax.parallel import Batch, Params, is_writer, local_batch_indices, to_global, to_host

Figures = dict[str, Any]  # by name: numbers, or lists of numbers
NO_MATTER = ("every", "batch_size")  # options of an evaluator that change no figure


class Evaluator(Protocol):
    """A function of parameters that returns figures. It asks `check_stop` between batches."""

    def __call__(self, params: Params, check_stop: CheckStop = go_on) -> Figures: ...


def run_evaluators(evaluators: dict[str, Evaluator], params: Params, step: int, check_stop: CheckStop = go_on) -> dict[str, Any]:
    """Return the content of results.json, {"step", "params_sha256", "evals": {name: figures}}; print a line per evaluator."""
    evals = {}
    for name, evaluator in evaluators.items():
        evals[name] = evaluator(params, check_stop)
        if is_writer():
            tqdm.write(f"step {step}  {name}: {figures_text(evals[name])}")
    return {"step": step, "params_sha256": params_sha256(to_host(params)), "evals": evals}


def figures_text(figures: Figures) -> str:
    """Return the figures as a line, counts whole, without the lists."""
    numbers = {key: value for key, value in figures.items() if not isinstance(value, list)}
    return ", ".join(f"{key} {value if isinstance(value, int) else f'{value:.4g}'}" for key, value in numbers.items())


class Examples(NamedTuple):
    """All examples of a source, as an evaluator sees them: iterate to get global batches (loader.Batch) on the mesh."""

    source: Source
    transform: Transform
    loader: ConfigDict
    batch_size: int
    present: tuple[int, ...] | None = None  # the model's classes that the source has, where it has not all
    note: str = ""  # what a user should know of its classes

    def batches(self, mesh: Mesh) -> Iterator[Batch]:
        indices = local_batch_indices(mesh, self.batch_size)
        for batch in eval_batches(self.source, self.transform, self.loader, batch_size=self.batch_size, batch_indices=indices):
            yield to_global(batch, mesh)


def open_examples(
    config: ConfigDict, class_names: Names, whose: str, host_transform: HostTransform = unchanged
) -> dict[str, dict[str, Examples]]:
    """Return, for each evaluator, its named sets of examples, their classes numbered as the model's or as the few-shot examples'.

    Touches no device. Raises UserError for data that are not there, or whose classes are not known to the model; and for a class
    with fewer examples than few-shot evaluation takes, where labels are read without images (see `check_few_shots`).

    Args:
      config: the whole config.
      class_names: the names of the model's classes.
      whose: where these come from, for messages.
      host_transform: what the host makes of an image (models/registry.py).
    """
    opened = {}
    for name, evaluator in config.evals.items():
        transform = eval_transform(evaluator.resize, evaluator.resize_size, config.image_size, host_transform)
        batch_size = evaluator.batch_size or config.batch_size
        sources = {field: _open(evaluator[field], f"config.evals.{name}.{field}") for field in DATA_FIELDS[evaluator.kind]}
        known = class_names, whose
        if evaluator.kind == "fewshot":  # the model's own classes do not matter
            known = sources["train"].class_names, f"config.evals.{name}.train"
        opened[name] = {
            field: _number_classes(Examples(source, transform, config.loader, batch_size), f"config.evals.{name}.{field}", *known)
            for field, source in sources.items()
        }
    check_few_shots(config.evals, opened, within_records=False)
    return opened


def check_few_shots(evals: ConfigDict, examples: dict[str, dict[str, Examples]], *, within_records: bool) -> None:
    """Raise UserError where a class has fewer examples than a few-shot evaluator takes, by the labels of all its examples.

    With `within_records` only those evaluators are looked at whose labels lie in one record with the image, so that all must be
    read, as for an evaluation; otherwise only the others.
    """
    for name, evaluator in evals.items():
        if evaluator.kind != "fewshot":
            continue
        apart = has_labels_apart(evaluator.train) and has_labels_apart(evaluator.test)
        if apart == within_records:
            continue
        train, test = (examples[name][field].source for field in ("train", "test"))
        if within_records and is_writer():
            print(f"Reading the labels of config.evals.{name}, once in a run: {len(train) + len(test)} records.")
        _shots_check(name, evaluator, train)(first_labels(train), first_labels(test))


def _open(data: ConfigDict, of: str) -> Source:
    """Open a source, and look whether its first record has labels: a test split is often published without them."""
    source = open_source(data, of)
    check_labels(source, 0, source.labels(0))
    return source


def _number_classes(examples: Examples, of: str, class_names: Names, whose: str) -> Examples:
    """Return the examples with their classes numbered as in `class_names`. Raises UserError for a class that is not there."""
    classes = map_classes(examples.source.class_names, of, class_names, whose)
    if classes.is_identity and len(classes.numbers) == len(class_names):
        return examples._replace(note=classes.note)
    present = tuple(sorted(classes.numbers)) if len(classes.numbers) < len(class_names) else None
    return examples._replace(source=Relabeled(examples.source, classes.numbers, class_names), present=present, note=classes.note)


def _shots_check(name: str, evaluator: ConfigDict, train: Source) -> ShotsCheck:
    """Return a function of all labels, of the examples to learn from and of those to classify: fewshot.check_shots."""
    shots, of = max(evaluator.shots), f"config.evals.{name}"
    return functools.partial(check_shots, shots=shots, class_names=train.class_names, of=of)


def check_batches(examples: dict[str, dict[str, Examples]], mesh: Mesh) -> None:
    """Raise UserError for an evaluator whose batches cannot be split over the devices."""
    for name, parts in examples.items():
        batch_size = max(part.batch_size for part in parts.values())
        if batch_size % mesh.size:
            raise UserError(
                f"config.evals.{name} evaluates {batch_size} images at once: that must be a multiple of {mesh.size}, the number "
                f"of devices. Set --config.evals.{name}.batch_size={-(-batch_size // mesh.size) * mesh.size}."
            )


def sources_of(examples: dict[str, dict[str, Examples]]) -> dict[str, Source]:
    """Return the sources that `open_examples` opened, by their paths in the config."""
    return {f"evals.{name}.{field}": part.source for name, parts in examples.items() for field, part in parts.items()}


def describe_evaluators(config: ConfigDict, examples: dict[str, dict[str, Examples]]) -> dict[str, dict[str, Any]]:
    """Return, by name, what an evaluator's figures depend on beside the parameters: its options, and the records of its data.

    Where the data lie, when it runs and with how many images at once does not matter. In the form in which JSON gives it back.
    """
    facts = source_facts(sources_of(examples))

    def describe(name: str, option: str, value: Any) -> Any:
        is_data = option in examples[name]
        return f"split {value['split']!r}, {facts[f'evals.{name}.{option}']}" if is_data else value

    options = {name: json.loads(evaluator.to_json()) for name, evaluator in config.evals.items()}
    return {
        name: {"image_size": config.image_size}
        | {option: describe(name, option, value) for option, value in values.items() if option not in NO_MATTER}
        for name, values in options.items()
    }


def make_evaluators(
    evals: ConfigDict,
    examples: dict[str, dict[str, Examples]],
    predict: Predict,
    loss: EvalLoss,
    mesh: Mesh,
    *,
    read_labels: bool = False,
) -> dict[str, Evaluator]:
    """Return an evaluator for each entry of `evals`, which is config.evals, by name; print the notes on their classes.

    With `read_labels`, few-shot evaluators are checked by all labels, also where these lie within records with the images.
    """
    if is_writer():
        for note in dict.fromkeys(part.note for parts in examples.values() for part in parts.values() if part.note):
            print(note)
    if read_labels:
        check_few_shots(evals, examples, within_records=True)

    def make(name: str) -> Evaluator:
        if evals[name].kind == "classification":
            data = examples[name]["data"]
            return Classification(data.batches, predict, loss, mesh, data.present)
        train, test = examples[name]["train"], examples[name]["test"]
        check = _shots_check(name, evals[name], train.source)

        def train_batches(source: Source, mesh: Mesh) -> Iterator[Batch]:
            return train._replace(source=source).batches(mesh)

        return FewShot(evals[name], train.source, train_batches, test.batches, predict, mesh, check)

    return {name: make(name) for name in evals}
