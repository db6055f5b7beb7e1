"""Options that fit together, options that contradict each other, and lengths of training in steps."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from ml_collections import ConfigDict

from mixer_jax import app
from mixer_jax.config import classification, dataset, default_config, duration, fewshot, flatten, steps_of
from mixer_jax.errors import UserError
from mixer_jax.options import ABOVE_0, EVALUATORS, OPTIONS, RENAMED, current_name, may_change_on_resume
from mixer_jax.recorded_config import recorded_config
from mixer_jax.validation import allows, validate

DIGITS = dataset("digits")


def sound_config() -> ConfigDict:
    config = default_config()
    config.data.source = "digits"
    config.total.epochs = 1.0
    config.evals = {"test": classification(DIGITS), "few": fewshot(DIGITS, DIGITS)}
    return config


def put(config: ConfigDict, field: str, value) -> None:
    *parents, last = field.split(".")
    for name in parents:
        config = config[name]
    config[last] = value


# (option, a value that contradicts the other options, a part of the message). tests/test_validation.py has the values that an
# option can never have.
CONTRADICTIONS = [
    ("total.steps", 10, "exactly one"),
    ("total.epochs", 0.0, "exactly one"),
    ("accumulation_steps", 3, "divisor of batch_size=4096"),
    ("init_head", "old", "new, restore, subset"),
    ("init_classes", "classes.txt", "with init_head=subset"),
    ("data.source", "", "tfds:imagenet2012"),
    ("augment.resize_size", 256, "0 with augment.crop=inception"),
    ("augment.resize", "small", "'square' with augment.crop=inception"),
    ("augment.crop_min_aspect", 2.0, "crop_max_aspect"),
    ("augment.randaugment_magnitude", 15, "0 with augment.randaugment_layers=0"),
    ("augment.randaugment_solarize", "clipped", "'wrapped' with augment.randaugment_layers=0"),
    ("loss.label_smoothing", 0.1, "0 with loss.kind=sigmoid"),
    ("optimizer.momentum", 0.8, "0.9 with optimizer.name=adam"),
    ("optimizer.weight_decay_pattern", "head/.*", "'.*/kernel' with optimizer.weight_decay=0.0"),
    ("optimizer.multipliers", (("(", 0.0),), "not a regular expression"),
    ("optimizer.multipliers", (("stem/.*", -1.0),), r"a factor in \[0,"),
    ("optimizer.multipliers", (("stem/.*",),), "pairs of a pattern"),
    ("optimizer.multipliers", ("stem/.*",), "pairs of a pattern"),
    ("schedule.warmup", duration(steps=1, epochs=1), "one unit"),
    ("schedule.step_shares", (0.6, 0.3), "increasing numbers"),
    ("schedule.step_shares", (0.3, 1.0), "increasing numbers"),
    ("schedule.step_shares", (0.3,), r"\(\) with schedule.decay=linear"),
    ("checkpoint.every", duration(steps=1, examples=1), "one unit"),
    ("evals.test.every", duration(epochs=1, steps=5), "one unit"),
    ("evals.test.kind", "knn", "classification, fewshot"),
    ("evals.test.resize_size", 223, "at least image_size=224"),
    ("model.pooling", "mean", "'token' with model.family=mixer"),
    ("evals.few.shots", (), "different numbers"),
    ("evals.few.shots", (0, 5), "different numbers"),
    ("evals.few.shots", (5, 5), "different numbers"),
    ("evals.few.seeds", (), "different numbers"),
    ("evals.few.seeds", (-1,), "different numbers"),
]
# ({option: value, ...}, the option that the message names, another part of the message)
CONTRADICTORY_PAIRS = [
    ({"augment.randaugment_layers": 2, "augment.randaugment_magnitude": 0}, "augment.randaugment_magnitude", "above 0"),
    ({"augment.crop": "random", "augment.resize_size": 223}, "augment.resize_size", "at least image_size=224"),
    ({"augment.crop": "resize", "augment.crop_min_area": 0.5}, "augment.crop_min_area", "0.05 with augment.crop=resize"),
    ({"optimizer.name": "sgd", "optimizer.b2": 0.99}, "optimizer.b2", "0.999 with optimizer.name=sgd"),
    (
        {"schedule.decay": "constant", "schedule.end_learning_rate": 0.1},
        "schedule.end_learning_rate",
        "0.0 with schedule.decay=constant",
    ),
    (
        {"optimizer.weight_decay": 0.1, "optimizer.weight_decay_pattern": "("},
        "optimizer.weight_decay_pattern",
        "not a regular expression",
    ),
    ({"schedule.decay": "steps", "schedule.step_shares": ()}, "schedule.step_shares", r"such as \(0.3"),
    ({"init_head": "restore", "init_from": ""}, "init_from", "a run's folder"),
    ({"batch_size": 6, "accumulation_steps": 4}, "accumulation_steps", "divisor of batch_size=6"),
]


def test_a_sound_config_passes():
    validate(sound_config())


@pytest.mark.parametrize(("field", "value", "word"), CONTRADICTIONS)
def test_a_contradiction_is_refused_with_the_field_to_change_and_what_it_takes(field, value, word):
    config = sound_config()
    put(config, field, value)
    named = field.rsplit(".", 1)[0] if field == "total.epochs" or value == 10 else field
    with pytest.raises(UserError, match=rf"config\.{re.escape(named)}.*{word}"):
        validate(config)


@pytest.mark.parametrize(("changes", "field", "word"), CONTRADICTORY_PAIRS)
def test_options_that_contradict_each_other_are_refused(changes, field, word):
    config = sound_config()
    for changed, value in changes.items():
        put(config, changed, value)
    with pytest.raises(UserError, match=rf"config\.{re.escape(field)}.*{word}"):
        validate(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("augment.crop_min_area", 1.0), ("model.dropout", 0.0), ("optimizer.clip_norm", 0.0), ("accumulation_steps", 4096),
        ("optimizer.multipliers", (("stem/.*", 0.0), ("head/.*", 10))), ("schedule.warmup", duration(examples=5)),
        ("checkpoint.every", duration()), ("checkpoint.keep", 2), ("optimizer.learning_rate", 0.0),
    ],
)  # fmt: skip
def test_values_at_the_edge_of_what_is_allowed_pass(field, value):
    config = sound_config()
    put(config, field, value)
    validate(config)


@pytest.mark.parametrize(
    ("unknown", "known"), [("batchsize", "batch_size"), ("acumulation_steps", "accumulation_steps"), ("num_class", "num_classes")]
)
def test_an_unknown_option_is_an_error_that_names_the_nearest(unknown, known):
    config = default_config()
    with pytest.raises((AttributeError, KeyError), match=rf"(?s){unknown}.*Did you mean.*{known}"):
        setattr(config, unknown, 1)


@pytest.mark.parametrize(
    "make", [default_config, lambda: DIGITS, lambda: classification(DIGITS), lambda: fewshot(DIGITS, DIGITS)]
)
def test_every_part_of_a_config_is_locked(make):
    def refuse(config):
        with pytest.raises((AttributeError, KeyError)):
            config.no_such_option = 1
        for value in config.values():
            if isinstance(value, ConfigDict):
                refuse(value)

    refuse(make())


def test_an_option_of_another_type_is_refused():
    with pytest.raises(TypeError):
        default_config().batch_size = "many"


IMAGENET, IMAGENET_21K = 1_281_167, 14_197_122


@pytest.mark.parametrize(
    ("length", "batch_size", "num_examples", "steps"),
    [
        (duration(epochs=300), 4096, IMAGENET, 93_835),  # The paper states this number.
        (duration(epochs=300), 4096, 1_268_355, 92_897),  # big_vision's train[:99%]
        (duration(epochs=300), 4096, IMAGENET_21K, 1_039_828),
        (duration(epochs=1), 512, 512, 1),
        (duration(epochs=0.5), 512, 2048, 2),
        (duration(examples=1_000_000), 4096, 7, 244),
        (duration(examples=7), 4, 1, 2),  # Steps are rounded to the nearest number.
        (duration(examples=9), 4, 1, 2),
        (duration(examples=1), 4096, 7, 1),  # A length that is not 0 has at least one step.
        (duration(steps=10_000), 4096, IMAGENET, 10_000),
        (duration(), 4096, IMAGENET, 0),
    ],
)
def test_a_length_of_training_in_steps(length, batch_size, num_examples, steps):
    found = steps_of(length, batch_size=batch_size, num_examples=num_examples)
    assert (found, type(found)) == (steps, int)


@pytest.mark.parametrize("length", [duration(epochs=1e6), duration(examples=2**50)])
def test_a_length_of_more_steps_than_a_run_can_count_is_refused(length):
    with pytest.raises(UserError, match=r"are \d+ steps of 4 images: a run can count to 2\^31 - 1"):
        steps_of(length, batch_size=4, num_examples=10**6)


def test_options_that_may_change_on_resume_are_options_and_none_of_them_changes_what_a_run_computes():
    names = list(flatten(sound_config()))
    free = [name for name in names if may_change_on_resume(name)]
    assert {name.split(".")[0] for name in free} == {
        "log_every_steps",
        "profile",
        "tracker",
        "compilation_cache",
        "data",
        "checkpoint",
        "evals",
        "loader",
        "parallel",
        "watchdog",
    }
    assert [name for name in free if name.startswith("data.")] == ["data.local_copy", "data.verify"]
    for option in OPTIONS:
        assert not option.resumable or [name for name in free if f"{name}.".startswith(f"{option.name}.")], option.name
    assert not may_change_on_resume("loader.max_pixels")  # This option decides which images are unreadable.
    assert may_change_on_resume("data.parts.photos.verify")
    assert not may_change_on_resume("data.parts.photos.weight")


def test_a_flat_config_has_every_leaf_by_its_path_in_the_order_of_names():
    flat = flatten(sound_config())
    assert list(flat) == sorted(flat)
    assert (flat["optimizer.b1"], flat["total.epochs"], flat["evals.test.data.source"]) == (0.9, 1.0, "digits")
    assert not [name for name, value in flat.items() if isinstance(value, ConfigDict) and len(value)]


ROWS = [*OPTIONS, *(row for rows in EVALUATORS.values() for row in rows)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_of_the_table_agrees_with_itself(row):
    assert row.doc.endswith(".") and "|" not in row.doc
    assert not row.allowed or allows(row.allowed, row.default)
    assert not row.choices or row.default in row.choices
    if row.only:
        other, *values = row.only
        known = next(other_row for other_row in ROWS if other_row.name == other)
        assert set(values) <= set(known.choices) or (values == [ABOVE_0] and isinstance(known.default, int | float))


def test_an_option_has_one_row():
    names = [row.name for row in OPTIONS]
    assert len(set(names)) == len(names)


def parts_with(config: ConfigDict, name: str) -> list[ConfigDict]:
    """Return the parts of a config that have an option of this name."""
    inner = [found for value in config.values() if isinstance(value, ConfigDict) for found in parts_with(value, name)]
    return [config, *inner] if name in config else inner


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_option_that_was_renamed_is_understood_by_its_old_name_and_the_new_one_is_said_once(old, new, capsys):
    current_name.cache_clear()
    config = sound_config()
    assert not parts_with(config, old)
    assert parts_with(config, new)
    for part in parts_with(config, new):
        value = type(part[new])(part[new] / 2)
        part[old] = value
        assert part[new] == value == getattr(part, old)
        setattr(part, old, value / 2)
        part.update({old: part[old] / 2})
        assert part[new] == value / 4
    assert flatten(recorded_config({"some": {old: 1}}))[f"some.{new}"] == 1
    assert capsys.readouterr().err == f"The option {old} is now called {new}.\n"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_flag_with_an_old_name_sets_the_renamed_option(old, new, capsys):
    current_name.cache_clear()
    config = default_config()
    (path,) = [name for name in flatten(config) if name.endswith(f".{new}")]
    value = flatten(config)[path] / 2
    flag = f"--config.{path.removesuffix(new)}{old}={value}"
    read = app.read_config(str(ROOT / "configs/finetune.py"), [flag])
    assert flatten(read)[path] == value
    assert capsys.readouterr().err == f"The option {old} is now called {new}.\n"


def test_importing_the_options_imports_no_jax():
    program = "import sys, mixer_jax.config; print(mixer_jax.__version__, 'jax' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert output.split()[1] == "False"
