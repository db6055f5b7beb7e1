"""From `config.evals` to evaluators: what each needs, opened before any device is touched."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from mixer_jax.checkpoints.digest import params_sha256
from mixer_jax.config import DATA_FIELDS
from mixer_jax.data.images.augment import HostTransform, Transform, eval_transform, unchanged
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Source
from mixer_jax.data.stream.loader import eval_batches
from mixer_jax.errors import UserError
from mixer_jax.evaluation.classification import Classification, EvalLoss
from mixer_jax.evaluation.fewshot import FewShot
from mixer_jax.evaluation.predict import Predict
from mixer_jax.parallel import Batch, Params, is_writer, local_batch_indices, to_global, to_host

Figures = dict[str, Any]  # by name: numbers, or lists of numbers


class Evaluator(Protocol):
    """A function of parameters that returns figures."""

    def __call__(self, params: Params) -> Figures: ...


def run_evaluators(evaluators: dict[str, Evaluator], params: Params, step: int) -> dict[str, Any]:
    """Return the content of results.json, {"step", "params_sha256", "evals": {name: figures}}; print a line per evaluator."""
    evals = {}
    for name, evaluator in evaluators.items():
        evals[name] = evaluator(params)
        if is_writer():
            numbers = (f"{key} {value:.4g}" for key, value in evals[name].items() if not isinstance(value, list))
            tqdm.write(f"step {step}  {name}: {', '.join(numbers)}")
    return {"step": step, "params_sha256": params_sha256(to_host(params)), "evals": evals}


class Examples(NamedTuple):
    """All examples of a source, as an evaluator sees them: iterate to get global batches (loader.Batch) on the mesh."""

    source: Source
    transform: Transform
    loader: ConfigDict
    batch_size: int

    def batches(self, mesh: Mesh) -> Iterator[Batch]:
        indices = local_batch_indices(mesh, self.batch_size)
        for batch in eval_batches(self.source, self.transform, self.loader, batch_size=self.batch_size, batch_indices=indices):
            yield to_global(batch, mesh)


def open_examples(config: ConfigDict, host_transform: HostTransform = unchanged) -> dict[str, dict[str, Examples]]:
    """For each evaluator, its named sets of examples, images as `host_transform` makes them (models/registry.py).

    Touches no device; raises UserError for data that are not there.
    """
    opened = {}
    for name, evaluator in config.evals.items():
        transform = eval_transform(evaluator.resize, evaluator.resize_size, config.image_size, host_transform)
        batch_size = evaluator.batch_size or config.batch_size
        loading = (transform, config.loader, batch_size)
        fields = DATA_FIELDS[evaluator.kind]
        opened[name] = {field: Examples(open_source(evaluator[field]), *loading) for field in fields}
        if evaluator.kind == "classification" and opened[name]["data"].source.num_classes != config.num_classes:
            raise UserError(
                f"config.evals.{name}.data has {opened[name]['data'].source.num_classes} classes and the model "
                f"{config.num_classes} (config.num_classes): an evaluator of kind classification needs them equal."
            )
    return opened


def make_evaluators(
    evals: ConfigDict, examples: dict[str, dict[str, Examples]], predict: Predict, loss: EvalLoss, mesh: Mesh
) -> dict[str, Evaluator]:
    """Return an evaluator for each entry of `evals`, which is config.evals, by name."""

    def make(name: str) -> Evaluator:
        if evals[name].kind == "classification":
            return Classification(examples[name]["data"].batches, predict, loss, mesh)
        return FewShot(evals[name], examples[name]["train"].batches, examples[name]["test"].batches, predict, mesh)

    return {name: make(name) for name in evals}
