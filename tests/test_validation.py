"""Every option of the table with values that it cannot have: each is refused by name, or is one of those with a meaning."""

import math

import pytest
from ml_collections import ConfigDict

from mixer_jax.config import classification, dataset, default_config, duration, fewshot, mixture
from mixer_jax.errors import UserError
from mixer_jax.options import DATASET, EVALUATORS, LENGTH, OPTIONS, Option
from mixer_jax.validation import UNITS, validate

HUGE = 10**30


def sound_config() -> ConfigDict:
    config = default_config()
    config.total.epochs = 1.0
    config.data = mixture(a=dataset("digits"), b=dataset("digits"))
    config.evals = {"test": classification(dataset("digits")), "few": fewshot(dataset("digits"), dataset("digits"))}
    return config


def rows() -> dict[str, Option]:
    """Every option by its path in `sound_config`."""
    data = ("data.parts.a", "evals.test.data", "evals.few.train", "evals.few.test")
    names = {"test": "classification", "few": "fewshot"}
    found = {row.name: row for row in OPTIONS}
    found |= {f"{path}.{row.name}": row for path in data for row in DATASET}
    return found | {f"evals.{name}.{row.name}": row for name, kind in names.items() for row in EVALUATORS[kind]}


ROWS = rows()
# Values that are allowed, of the ones below, by the last word of an option's path.
MEANINGFUL = {
    0: {
        "seed", "subset_seed", "num_examples", "examples_per_class", "batch_size", "resize_size", "hidden_dim", "num_blocks",
        "channels_mlp_dim", "tokens_mlp_dim", "num_heads", "tile_size", "pre_logits_dim", "dropout", "stoch_depth",
        "head_bias_init", "max_unreadable_share", "randaugment_layers", "randaugment_magnitude", "mixup", "label_smoothing",
        "b1", "b2", "momentum", "learning_rate", "weight_decay", "clip_norm", "end_learning_rate", "ema_decay",
        "steps", "epochs", "examples", "max_predictions", "step_seconds", "step_medians", "compile_seconds", "restore_seconds",
        "data_seconds", "save_seconds", "evaluation_seconds",
    },
    -1: {"head_bias_init"},
}  # fmt: skip
ONLY_ABOVE_0 = {"batch_size", "total.epochs"}  # of these whole paths 0 is refused


def put(config: ConfigDict, path: str, value) -> None:
    """Set an option and, where it would have no effect, the option that decides that."""
    *parents, last = path.split(".")
    part = config
    for name in parents:
        part = part[name]
    part[last] = value
    if path in ROWS and ROWS[path].only and not path.startswith(("data.parts", "evals")):
        other, *having = ROWS[path].only
        chosen = {"augment.randaugment_layers": 2, "optimizer.weight_decay": 0.1}.get(other, having[0])
        put(config, other, chosen)
        if path not in ("augment.randaugment_magnitude",) and other == "augment.randaugment_layers":
            config.augment.randaugment_magnitude = 15


def refused(path: str, value) -> str:
    """The message with which a value is refused; empty when it is not."""
    config = sound_config()
    put(config, path, value)
    try:
        validate(config)
    except UserError as error:
        return str(error)
    return ""


NUMBERS = [path for path, row in ROWS.items() if isinstance(row.default, int | float) and not isinstance(row.default, bool)]
LENGTHS = [f"{path}.{unit}" for path, row in ROWS.items() if row.unit == LENGTH for unit in UNITS]


def values_of(path: str) -> list:
    kind = type(ROWS[path].default) if path in ROWS else {"epochs": float}.get(path.rsplit(".", 1)[1], int)
    return [kind(0), kind(-1), kind(HUGE), *([math.inf, -math.inf, math.nan] if kind is float else [])]


@pytest.mark.parametrize("path", NUMBERS + LENGTHS)
def test_a_number_that_cannot_be_is_refused_with_the_options_name(path: str):
    for value in values_of(path):
        is_meaningful = path.rsplit(".", 1)[-1] in MEANINGFUL.get(value, ()) and (value != 0 or path not in ONLY_ABOVE_0)
        message = refused(path, value)
        if path == "augment.randaugment_magnitude" and value == 0:
            assert "above 0 when randaugment_layers is" in message
        elif is_meaningful:
            assert not message, f"{path}={value} has a meaning"
        else:
            assert message.startswith(f"config.{path.removesuffix('.epochs') if value == 0 else path} is "), f"{path}={value}"


@pytest.mark.parametrize("path", ROWS)
def test_no_option_is_nothing(path: str):
    row = ROWS[path]
    if row.default is None or not isinstance(row.default, ConfigDict):
        assert refused(path, None).startswith(f"config.{path} is None: it must be ")


@pytest.mark.parametrize("path", [path for path, row in ROWS.items() if row.choices or row.name == "kind"])
def test_a_name_that_is_no_choice_is_refused_with_the_choices(path: str):
    message = refused(path, "no-such-name")
    assert message.startswith(f"config.{path} is 'no-such-name': it must be one of ")
    assert all(choice in message for choice in ROWS[path].choices or EVALUATORS)


@pytest.mark.parametrize("path", [path for path, row in ROWS.items() if isinstance(row.default, tuple)])
@pytest.mark.parametrize("value", [(-1,), (HUGE,), (1.5,), ("one",), (1, 1), (math.nan,), (("stem/.*", math.inf),)])
def test_a_tuple_with_an_item_that_cannot_be_is_refused(path: str, value: tuple):
    assert refused(path, value).startswith(f"config.{path} is "), value


@pytest.mark.parametrize("name", ["a/b", "a b", "", "top:1"])
def test_a_name_that_would_be_another_in_metrics_paths_or_flags_is_refused(name: str):
    config = sound_config()
    config.evals = {name: classification(dataset("digits"))}
    with pytest.raises(UserError, match=r"config\.evals: the name .* must be of letters, digits, _ and -"):
        validate(config)
    config = sound_config()
    config.data.parts = {name: dataset("digits")}
    with pytest.raises(UserError, match=r"config\.data\.parts: the name .* must be of letters"):
        validate(config)


def test_every_number_has_bounds_and_whole_numbers_may_be_given_for_fractions():
    assert not [path for path in NUMBERS if not ROWS[path].allowed]
    config = sound_config()
    config.optimizer.clip_norm = 1
    config.total = duration(epochs=2)
    validate(config)
