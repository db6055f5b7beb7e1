"""Evaluates a checkpoint: `python evaluate.py [--config=configs/FILE.py[:ARG]] --checkpoint=WEIGHTS --workdir=OUT`.

Without --config, the config of the run in --checkpoint is used. The program runs every evaluator of the config (config.evals)
once. It writes their figures to OUT/results.json and their predictions to OUT/predictions/, in the form that training uses.
"""

import functools

import jax
from absl.flags import FlagValues
from ml_collections import ConfigDict

from mixer_jax import app, endings, parallel
from mixer_jax.checkpoints.run_paths import config_file
from mixer_jax.checkpoints.transfer import fit
from mixer_jax.checkpoints.weights import load_weights, tree_of
from mixer_jax.data.sources.own_data import follow_training_data
from mixer_jax.data.sources.source import source_facts
from mixer_jax.errors import UserError
from mixer_jax.evaluation.evaluators import (
    answers_writer,
    check_batches,
    describe_evaluators,
    make_evaluators,
    open_examples,
    run_evaluators,
    sources_of,
)
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.hosts.agreement import agree, agree_on_folder
from mixer_jax.hosts.compiled_programs import keep_compiled_programs
from mixer_jax.hosts.joining import join
from mixer_jax.hosts.software import program_facts
from mixer_jax.models.registry import host_transform, make_model
from mixer_jax.stopwatch import Stopwatch, process_age
from mixer_jax.supervision.watchdog import Watchdog, end_stalled, mark_stalled
from mixer_jax.training.losses import make_eval_loss
from mixer_jax.training.state import init_params
from mixer_jax.validation import validate
from mixer_jax.workdir import Workdir, refuse_run_folder


def main(flags: FlagValues) -> int:
    """Run `evaluate` on the command line's config, completed for the data that the user typed. Return the exit code."""
    keep_compiled_programs(flags.config.compilation_cache)
    in_file, typed = app.typed_options(flags)
    note = follow_training_data(flags.config, in_file, typed)
    if note and parallel.is_writer():
        print(note)
    classes_of_weights = "num_classes" not in typed
    return evaluate(flags.config, flags.checkpoint, flags.workdir, classes_of_weights=classes_of_weights, age=process_age())


def evaluate(config: ConfigDict, checkpoint: str, workdir: str, *, classes_of_weights: bool = False, age: float = 0.0) -> int:
    """Evaluate `checkpoint` with every evaluator of `config`, and return the exit code of the program.

    Raises UserError for what a person must change, and EnvironmentFault for what may succeed later.

    Args:
      config: The config.
      checkpoint: A run's folder, one of its checkpoints, or a file of weights.
      workdir: The folder for results.json and predictions/.
      classes_of_weights: Whether the number of classes is that of the checkpoint, whatever config.num_classes says.
      age: The seconds since the process was started, which count as initialization.
    """
    stopwatch = Stopwatch(age)
    config.checkpoint.best = ""  # An option of training. It may name an evaluator that is switched off here.
    validate(config)
    refuse_run_folder(workdir)
    agree("config, code and packages", lambda: program_facts(config), timeout_seconds=60)
    if not config.evals:
        raise UserError("config.evals is empty: there is nothing to evaluate.")
    weights = load_weights(checkpoint)
    if classes_of_weights and weights.class_names:
        config.num_classes = len(weights.class_names)
    model = make_model(config.model, config.num_classes)
    shapes = jax.eval_shape(lambda: init_params(model, config.image_size, config.seed))
    arrays = fit(weights, shapes, config.model.permutation, config.image_size)
    examples = open_examples(config, weights.class_names, checkpoint, host_transform(config.model))

    # The data, the devices and the folder, which must be the same on all hosts.
    agree("data", lambda: source_facts(sources_of(examples)))
    agree("devices", parallel.local_device_facts)
    mesh = parallel.make_mesh(config.parallel.fsdp)
    check_batches(examples, mesh)
    run = Workdir(workdir, writer=parallel.is_writer())
    agree_on_folder(run.name, run.read_owner, run.owner)
    shardings = parallel.state_sharding(shapes, mesh, parallel.GATHERED_AXES)
    params = jax.tree.map(parallel.from_host, tree_of(arrays), shardings)
    loss = make_eval_loss(config.loss.kind, config.num_classes)
    evaluators = make_evaluators(config.evals, examples, make_predict(model, mesh), loss, config.loss.kind, mesh)
    described = describe_evaluators(config, examples)
    save_answers, write_mark = answers_writer(run.path, examples, described), functools.partial(mark_stalled, run)
    with Watchdog(stopwatch, config.watchdog, lambda stall: end_stalled(stall, write_mark)), stopwatch("evaluation"):
        results = run_evaluators(evaluators, params, weights.step, save_answers, stopwatch.beat)
    if replaced := run.replaced_by(results):
        print(replaced)
    run.add_results(results | {"evaluators": described, "checkpoint": weights.path, "seconds": stopwatch.report()})
    return endings.DONE


if __name__ == "__main__":
    app.run(
        main,
        join,
        config_of=("checkpoint", config_file),
        checkpoint="A run's folder (its newest sound step), its checkpoints/STEP or its best, or a file of weights.",
        workdir="Folder for results.json and predictions/.",
    )
