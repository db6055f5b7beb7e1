"""Pre-trains or fine-tunes a model: `python train.py --config=configs/FILE.py[:ARG] --workdir=DIR [--config.a.b=VALUE ...]`.

The function `train` is a run from beginning to end. Its state comes from the first of these that exists:

    1. the newest sound checkpoint in --workdir, where the run goes on exactly;
    2. config.init_from: the parameters of another run or of a file, with a new head unless config.init_head says otherwise;
    3. random initialization.
"""

import functools
import itertools
import sys
from collections.abc import Callable, Iterator

import numpy as np
from absl.flags import FlagValues
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from mixer_jax import app, endings, parallel, records
from mixer_jax.accelerators import peak_flops_per_sec
from mixer_jax.checkpoints.best import BestCheckpoint
from mixer_jax.checkpoints.manager import Checkpoints
from mixer_jax.checkpoints.transfer import init_from
from mixer_jax.classes import Names, from_json, to_json
from mixer_jax.config import steps_of
from mixer_jax.data.images.augment import Transform, train_transform
from mixer_jax.data.sources.own_data import follow_training_data, names_training_data
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.sources.source import Source, source_facts
from mixer_jax.data.stream.loader import HostBatch, train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.errors import UserError
from mixer_jax.evaluation.evaluators import (
    Examples,
    answers_writer,
    check_batches,
    describe_evaluators,
    make_evaluators,
    open_examples,
    run_evaluators,
    sources_of,
    writes_predictions,
)
from mixer_jax.evaluation.predict import make_predict
from mixer_jax.hosts.agreement import agree, agree_on_folder
from mixer_jax.hosts.compiled_programs import keep_compiled_programs
from mixer_jax.hosts.joining import join
from mixer_jax.hosts.software import program_facts
from mixer_jax.models.registry import host_transform
from mixer_jax.stopwatch import Stopwatch, process_age
from mixer_jax.supervision.supervision import Supervision
from mixer_jax.trackers import check_tracker, open_tracker
from mixer_jax.training import loop
from mixer_jax.training.losses import make_eval_loss
from mixer_jax.training.memory import check_host_memory
from mixer_jax.training.preemption import Stopped, StopRequest
from mixer_jax.training.profiling import Profiler, steps_to_profile
from mixer_jax.training.program import Program, make_program
from mixer_jax.training.state import TrainState, from_items, to_items
from mixer_jax.training.unreadable_share import TooManyUnreadableError, UnreadableShare
from mixer_jax.validation import validate
from mixer_jax.workdir import Workdir, check_workdir


def main(flags: FlagValues) -> int:
    """Run `train` on the command line's config, completed for the training data that the user typed. Return the exit code."""
    keep_compiled_programs(flags.config.compilation_cache)
    in_file, typed = app.typed_options(flags)
    note = follow_training_data(flags.config, in_file, typed)
    if note and parallel.is_writer():
        print(note)
    classes_of_data = names_training_data(typed) and "num_classes" not in typed
    return train(flags.config, flags.workdir, classes_of_data=classes_of_data, age=process_age())


def train(config: ConfigDict, workdir: str, *, classes_of_data: bool = False, age: float = 0.0) -> int:
    """Start or resume the run of `config` in the folder `workdir`, and return the exit code of the program.

    With `classes_of_data`, the model has as many classes as the training data, whatever config.num_classes says. `age` is the
    seconds since the process was started, which count as initialization. Raises UserError for what a person must change, and
    EnvironmentFault for what may succeed later.
    """
    stopwatch = Stopwatch(age)

    # What needs no device comes first, so that a mistake is found within seconds and before anything is written.
    validate(config)
    check_workdir(workdir)
    check_tracker(config.tracker)
    agree("config, code and packages", lambda: program_facts(config), timeout_seconds=60)
    source = open_source(config.data)
    choose_num_classes(config, source.num_classes, classes_of_data)
    on_host = host_transform(config.model)
    transform = train_transform(config.augment, config.image_size, on_host)
    examples = open_examples(config, source.class_names, "the training data", on_host)
    steps = functools.partial(steps_of, batch_size=config.batch_size, num_examples=len(source))
    milestones = make_milestones(config, steps)
    profiled = steps_to_profile(config.profile, milestones.total)
    program = make_program(config, milestones.total, steps(config.schedule.warmup))

    # The data, the devices and the run's folder, which must be the same on all hosts.
    agree("data", lambda: source_facts({"data": source} | sources_of(examples)))
    agree("devices", parallel.local_device_facts)
    mesh = parallel.make_mesh(config.parallel.fsdp)
    batch_indices = parallel.local_batch_indices(mesh, config.batch_size)
    check_batches(examples, mesh)
    memory = check_host_memory(config, mesh, batch_indices, program.state_shapes(mesh), source, examples)
    run = Workdir(workdir, writer=parallel.is_writer())
    agree_on_folder(run.name, run.read_owner, run.owner)
    run.refuse_other_run(config)

    # From here on, the watchdog ends the program if nothing goes on, and the account of the run's time is written.
    with run, Supervision(run, stopwatch, config.watchdog) as supervision:
        # The state comes from the list at the top of this file. A finished run only evaluates what has no figures yet.
        data = {"source": source.identity(), "examples": len(source), "batch_size": config.batch_size, "seed": config.seed}
        with stopwatch("restore"):
            checkpoints = Checkpoints(run.name, config.checkpoint.keep, run.check_owner)
            state, substituted, origin = open_state(config, program, run, checkpoints, mesh, data, source.class_names, stopwatch)
        refuse_shorter(run.name, int(state.step), milestones.total)
        first_step, total, described = int(state.step), milestones.total, describe_evaluators(config, examples)
        new = evaluators_without_results(config, run, total, described, examples)
        if first_step == total and is_finished(run, total, new):
            return endings.DONE
        stopwatch.beat(first_step)

        # Compile the step, open the stream of batches from the next step on, and make the evaluators.
        flops = 0.0
        if first_step < total:
            with stopwatch("compile"):
                train_step, flops = program.compile_step(mesh, source.max_labels)
        steps_to_do = range(first_step, total)
        batches, unreadable_share = open_stream(config, source, transform, batch_indices, steps_to_do, substituted)
        predict, eval_loss = make_predict(program.model, mesh), make_eval_loss(config.loss.kind, config.num_classes)
        is_new = first_step == 0
        evaluators = make_evaluators(config.evals, examples, predict, eval_loss, config.loss.kind, mesh, read_labels=is_new)
        metrics = records.MetricWriter(run.path, first_step, parallel.is_writer(), lambda: open_tracker(config, run.path))
        facts = {"first_step": first_step, "total_steps": total, "step_flops_per_device": flops, "host_memory_mib": memory}
        facts |= {"parameters": int(parameter_overview.count_parameters(state.params))} | parallel.device_facts(mesh) | origin
        run.record_start(config, facts)
        best = BestCheckpoint(config.checkpoint.best, run, metrics, checkpoints)
        best.update()
        save_answers, stop = answers_writer(run.path, examples, described), StopRequest()

        def save(step: int, state: TrainState) -> None:
            progress = {"next_position": step * config.batch_size, "substituted": unreadable_share.count}
            images = {"permutation": config.model.permutation, "image_size": config.image_size}  # No array shows these.
            meta = {"step": step, "data": data | progress, "class_names": to_json(source.class_names)} | images
            with stopwatch("checkpoint"):
                supervision.write_account()
                run.upload()  # The metrics and the time of the steps that the checkpoint has, before the checkpoint.
                checkpoints.save(step, to_items(state), meta)

        def evaluate(step: int, state: TrainState, names: list[str]) -> None:
            def check_stop() -> None:
                stopwatch.beat()
                stop.check_in_evaluation()

            with stopwatch("evaluation"):
                params = parallel.gather_for_evaluation(state.eval_params, mesh)
                results = run_evaluators({name: evaluators[name] for name in names}, params, step, save_answers, check_stop)
                metrics.write_evals(step, results["evals"])
                best.update()
                results |= {"evaluators": {name: described[name] for name in names}, "seconds": stopwatch.report()}
                run.add_results(results)

        missed = missed_evaluations(milestones, first_step, metrics)
        on_all_hosts = (loop.DivergedError, TooManyUnreadableError)
        with stopwatch("checkpoint"), stop, metrics, checkpoints.finishing(after_on_all_hosts=on_all_hosts):
            try:
                if missed:
                    evaluate(first_step, state, missed)
                if first_step < total:
                    if parallel.is_writer():
                        print(records.start_line(config, facts, run.name), file=sys.stderr)
                    peak = peak_flops_per_sec(mesh.devices.flat[0].device_kind)
                    with stopwatch("training"):
                        state = loop.train(
                            state, train_step, batches, mesh, milestones, first_step=first_step, save=save, evaluate=evaluate,
                            metrics=metrics, unreadable_share=unreadable_share, stop=stop,
                            rate=loop.Rate(config.batch_size, mesh.size, flops, peak, stopwatch),
                            profiler=Profiler(profiled, run.path / "profile"),
                        )  # fmt: skip
                checkpoints.finish()  # The last checkpoint is on disk before the last evaluation begins.
                evaluate(total, state, new)
            except Stopped as stopped:
                checkpoints.finish()
                step = checkpoints.latest_step()
                print(f"Stopped as asked {stopped}: step {step} of {total} is saved. The same command goes on.")
                metrics.ending = supervision.ending = "stopped"
                return endings.STOPPED
    return endings.DONE


def make_milestones(config: ConfigDict, steps: Callable[[ConfigDict], int]) -> loop.Milestones:
    """Return the milestones of a run. `steps` returns the number of steps of a length of training."""
    return loop.Milestones(
        total=steps(config.total),
        log_every=config.log_every_steps,
        checkpoint_every=steps(config.checkpoint.every),
        evaluate_every={name: steps(evaluator.every) for name, evaluator in config.evals.items()},
        saved_for=config.checkpoint.best.removeprefix("evals.").partition(".")[0],
    )


def choose_num_classes(config: ConfigDict, num_classes: int, classes_of_data: bool) -> None:
    """Set config.num_classes to that of the training data if `classes_of_data`. If not, raise UserError where the two differ."""
    if config.num_classes == num_classes:
        return
    if not classes_of_data:
        raise UserError(f"The training data have {num_classes} classes: set --config.num_classes={num_classes}.")
    config.num_classes = num_classes
    if parallel.is_writer():
        print(f"Set for the training data {config.data.source}, as you did not type it: --config.num_classes={num_classes}")


def open_state(
    config: ConfigDict,
    program: Program,
    run: Workdir,
    checkpoints: Checkpoints,
    mesh: Mesh,
    data: dict,
    class_names: Names,
    stopwatch: Stopwatch,
) -> tuple[TrainState, int, dict]:
    """Return the state that the run starts from, as the list at the top of this file says.

    Also return the number of images substituted so far, and what run.json says about the origin of the state.

    Args:
      config: The config of the run.
      program: Initializes states.
      run: The run's folder.
      checkpoints: The run's checkpoints.
      mesh: The devices.
      data: What a checkpoint must have recorded of the training data.
      class_names: The classes of the training data.
      stopwatch: Counts the time of new states as compiling, which is nearly all of it.
    """
    if restored := checkpoints.restore_latest(to_items(program.state_shapes(mesh))):  # 1 of the list
        items, meta = restored
        check_same_data(meta, data, class_names)
        run.say_moved_data(config)
        return from_items(items), meta["data"]["substituted"], {}
    with stopwatch("compile"):
        params, origin = program.init_params(mesh), {}  # 3 of the list
    if config.init_from:  # 2 of the list: it replaces the parameters that the file has
        params, listing, source = init_from(
            config.init_from, params, config.init_head, config.init_classes, class_names,
            permutation=config.model.permutation, image_size=config.image_size,
        )  # fmt: skip
        print_listing(config.init_from, listing)
        origin = {"init_from": source}
    with stopwatch("compile"):
        return program.init_state(mesh, params), 0, origin


def check_same_data(meta: dict, now: dict, class_names: Names) -> None:
    """Raise UserError when the training data are not those of the checkpoint: a position in other data would mean nothing."""
    then = meta["data"]
    changed = [f"{name}: {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]]
    # Runs before 2026-12 recorded no names of classes.
    if "class_names" in meta and (names := from_json(meta["class_names"])) != class_names:
        number = next(i for i, pair in enumerate(itertools.zip_longest(names, class_names)) if pair[0] != pair[1])
        changed.append(f"class {number}: {names[number : number + 1]} then, {class_names[number : number + 1]} now")
    if changed:
        raise UserError(
            f"The training data have changed since the run's last checkpoint ({'; '.join(changed)}). Put "
            "back those that it began with, or choose another --workdir for a run on these."
        )


def refuse_shorter(workdir: str, step: int, total: int) -> None:
    """Raise UserError when the run is beyond the last step that its config asks for."""
    if step > total:
        raise UserError(
            f"{workdir} is at step {step} already, and config.total asks for {total}. Set it to {step} or more, or evaluate an "
            f"earlier step with evaluate.py --checkpoint={workdir}/checkpoints/STEP."
        )


def evaluators_without_results(
    config: ConfigDict, run: Workdir, step: int, described: dict[str, dict], examples: dict[str, dict[str, Examples]]
) -> list[str]:
    """Return the names of the evaluators whose figures of a step, or the predictions that belong to them, the run lacks."""

    def is_done(name: str) -> bool:
        return run.has_figures(step, name, described[name], writes_predictions(config.evals[name], examples[name]))

    return [name for name in described if not parallel.broadcast_from_writer(is_done(name))]


def is_finished(run: Workdir, total: int, new: list[str]) -> bool:
    """Return whether a run at its last step, `total`, has nothing to do, and print it.

    `new` are the names of the evaluators without results.
    """
    if parallel.broadcast_from_writer(run.has_results(total)):
        to_do = f". Evaluating what is new, without training: {', '.join(new)}." if new else ", and evaluated. Nothing to do."
        print(f"{run.name} is finished: it is at step {total} of {total}{to_do}")
        return not new
    return False


def missed_evaluations(milestones: loop.Milestones, step: int, metrics: records.MetricWriter) -> list[str]:
    """Return the names of the evaluators that were due at `step`, and have no figures because a stop cut them off."""
    due = milestones.evaluations_due(step)
    return [name for name in due if parallel.broadcast_from_writer(not metrics.evaluated(step, name))]


def open_stream(
    config: ConfigDict, source: Source, transform: Transform, batch_indices: np.ndarray, steps: range, substituted: int
) -> tuple[Iterator[HostBatch], UnreadableShare]:
    """Return this host's batches of `steps`, and the count of the images that could not be read, `substituted` so far."""
    unreadable = UnreadableImages()
    max_share = config.loader.max_unreadable_share
    unreadable_share = UnreadableShare(len(source), config.batch_size, max_share, unreadable.first, substituted)
    batches = train_batches(
        source, transform, config.loader, seed=config.seed, batch_size=config.batch_size, batch_indices=batch_indices,
        steps=steps, unreadable=unreadable,
    )  # fmt: skip
    return batches, unreadable_share


def print_listing(path: str, listing: dict[str, list[str]]) -> None:
    """Print what a transfer did with the parameters: the names of their top-level modules, by what was done."""
    print(f"From {path}:")
    for fate, names in listing.items():
        print(f"  {fate:9s} {len(names):4d} arrays: {', '.join(sorted({name.split('/')[0] for name in names})) or '-'}")


if __name__ == "__main__":
    app.run(
        main, join, workdir="The run's folder. It is made if it is missing. If it holds a run of this config, that run goes on."
    )
