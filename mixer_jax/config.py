"""The functions that make configs from the table of options, and that read them.

A config file (configs/*.py) calls `default_config()`, changes a few options and cites the table and row of the paper that it
reproduces. options.py has the table.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.options import DATA_FIELDS, DATASET, EVALUATORS, OPTIONS, Option, Section
from mixer_jax.options import duration as duration  # Config files import it from here.


def default_config() -> ConfigDict:
    """Return all options with their defaults, locked: an unknown name raises an error that suggests the nearest known one."""
    return _section(OPTIONS)


def dataset(source: str | None = None, split: str | None = None, **changes: Any) -> ConfigDict:
    """Return a config of labeled images.

    Args:
      source: the URI of the source, such as "tfds:imagenet2012". mixer_jax/data/sources/registry.py lists all kinds.
      split: the name of the split.
      **changes: other options, by the names in DATASET.
    """
    return _section(DATASET, source=source, split=split, **changes)


def mixture(**parts: ConfigDict) -> ConfigDict:
    """Return a config of labeled images from several `dataset(...)`, given by name, each with a weight.

    The parts are in the order of their names. mixer_jax/data/stream/order.py describes how their images are mixed. An epoch, as a
    length of training, has as many images as all parts together.
    """
    return _section(DATASET, parts=parts)


def classification(data: ConfigDict, **changes: Any) -> ConfigDict:
    """Return the config of an evaluator of top-1 accuracy, top-5 accuracy and loss over every example of a split.

    `changes` are options by the names in EVALUATORS. mixer_jax/evaluation/classification.py is the evaluator.
    """
    return _section(EVALUATORS["classification"], data=data, **changes)


def fewshot(train: ConfigDict, test: ConfigDict, **changes: Any) -> ConfigDict:
    """Return the config of an evaluator of linear few-shot accuracy on frozen features.

    `changes` are options by the names in EVALUATORS. mixer_jax/evaluation/fewshot.py is the evaluator.
    """
    return _section(EVALUATORS["fewshot"], train=train, test=test, **changes)


def new_evaluator(options: Collection[str], kind: str | None = None) -> ConfigDict:
    """Return the config of an evaluator whose data have no source yet.

    Its kind is `kind` if there is such a kind, otherwise the first kind that has all of these options, otherwise the first kind.
    """
    fitting = [name for name, rows in EVALUATORS.items() if {row.name for row in rows}.issuperset(options)]
    kind = kind if kind in EVALUATORS else next(iter([*fitting, *EVALUATORS]))
    return _section(EVALUATORS[kind], **{field: dataset() for field in DATA_FIELDS[kind]})


def steps_of(length: ConfigDict, *, batch_size: int, num_examples: int) -> int:
    """Return the number of optimizer steps of a `duration`, or 0 if no unit is set.

    Epochs and examples are rounded to the nearest step. For example, 300 epochs of ImageNet (1 281 167 images) at batch size 4096
    are 93 835 steps, which agrees with the paper, on any number of devices. Raises UserError for more than 2^31 - 1 steps, the
    largest number that the step counter can hold.
    """
    examples = length.examples or length.epochs * num_examples
    steps = length.steps or (max(1, round(examples / batch_size)) if examples else 0)
    if steps >= 2**31:
        raise UserError(f"{length.to_dict()} are {steps} steps of {batch_size} images: a run can count to 2^31 - 1.")
    return steps


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Return {path of an option: value}, such as {"optimizer.b1": 0.9, ...}, sorted by path."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return dict(sorted(flat.items()))


def without_paths(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat config without the directories of data, to compare two runs.

    The data themselves are compared by the fingerprints of their records, wherever they lie.
    """

    def without_path(name: str, value: Any) -> Any:
        option = name.rpartition(".")[2]
        kind, _, _ = str(value).partition(":")
        if option == "source" and kind in ("folder", "records"):
            return f"{kind}:"
        return "" if option in ("data_dir", "local_copy") else value

    return {name: without_path(name, value) for name, value in flat.items()}


def _section(options: Sequence[Option], **changes: Any) -> ConfigDict:
    """Return a locked config of `options`, with `changes` instead of the defaults. Changes that are None are ignored.

    Raises an error for a change of an unknown option.
    """
    section = Section()
    for option in options:
        *parents, name = option.name.split(".")
        holder = section
        for parent in parents:
            if parent not in holder:
                holder[parent] = Section()
            holder = holder[parent]
        holder[name] = copy.deepcopy(option.default)
    section.lock()
    for name, value in changes.items():
        if value is not None:
            # Without the copy, two evaluators could share a dataset, and a change in one would change the other.
            section[name] = copy.deepcopy(value)
    return section
