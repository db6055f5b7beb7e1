"""Every shipped config is valid and has the sizes and numbers of the paper. Rows that the paper does not have are refused."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from conftest import ROOT
from ml_collections import ConfigDict
from sklearn.datasets import load_sample_images
from tiny_config import loader_config

from mixer_jax import app, endings
from mixer_jax.config import classification, dataset, duration, steps_of
from mixer_jax.data.images.augment import eval_transform, random_crop, train_transform
from mixer_jax.data.images.resize import resize, resize_small
from mixer_jax.data.sources.registry import open_source
from mixer_jax.data.stream.loader import train_batches
from mixer_jax.data.stream.unreadable import UnreadableImages
from mixer_jax.errors import UserError
from mixer_jax.parallel import make_mesh, to_global
from mixer_jax.training.program import make_program
from mixer_jax.validation import validate

IMAGES = {"pretrain_imagenet": 1_281_167, "pretrain_imagenet21k": 14_197_122, "pretrain_jft300m": 303_000_000, "finetune": 50_000}


def module(name: str) -> dict:
    return runpy.run_path(str(ROOT / "configs" / f"{name}.py"))


ROWS = [(name, row) for name in IMAGES for row in module(name)["ROWS"]]
DEMO = sorted(file.stem for file in (ROOT / "configs/demo").glob("*.py"))
ALL = ROWS + [(f"demo/{name}", None) for name in DEMO]
# The exact numbers of parameters of the models in Table 1 of arXiv 2105.01601, with their heads, by (variant, classes).
PARAMETERS = {
    ("B/16", 1000): 59_880_472,
    ("L/16", 1000): 208_196_168,
    ("B/16", 21_843): 75_908_739,
    ("L/16", 21_843): 229_560_243,
}
BODIES = {
    "S/32": (18_591_624, 512),
    "S/16": (18_015_264, 512),
    "B/32": (59_524_428, 768),
    "B/16": (59_111_472, 768),
    "L/32": (205_914_264, 1024),
    "L/16": (207_171_168, 1024),
    "H/14": (431_069_952, 1280),
}


def read(name: str, row: str | None) -> ConfigDict:
    get_config = module(name)["get_config"]
    return get_config(row) if row else get_config()


@pytest.mark.parametrize("name, row", ALL)
def test_it_is_valid_and_locked(name: str, row: str | None):
    config = read(name, row)
    validate(config)
    with pytest.raises((KeyError, AttributeError), match="learning_rate"):
        config.optimizer.learning_rat = 1.0


@pytest.mark.parametrize("name, row", ALL)
def test_its_full_size_state_has_the_papers_parameter_count(name: str, row: str | None):
    config = read(name, row)
    state = make_program(config, total_steps=100_000, warmup_steps=10_000).state_shapes(make_mesh(1))
    count = sum(x.size for x in jax.tree.leaves(state.params))
    if name.startswith("demo/"):
        assert count < 1_000_000
        return
    body, width = BODIES[config.model.variant]
    assert count == body + (width + 1) * config.num_classes
    assert count == PARAMETERS.get((config.model.variant, config.num_classes), count)
    moments = {"adam": 2, "sgd": 1}[config.optimizer.name]
    assert sum(x.size for x in jax.tree.leaves(state.opt_state)) - moments * count < 5


@pytest.mark.parametrize("name", IMAGES)
def test_a_row_that_the_paper_has_not_is_refused_with_those_it_has(name: str):
    for row in ("S/8", "XL/16", ""):
        with pytest.raises(UserError) as error:
            module(name)["get_config"](row)
        assert all(known in str(error.value) for known in module(name)["ROWS"])


# Table 4 of arXiv 2105.01601, transcribed apart from the configs: epochs, lr, decay, RandAugment m, mixup p, dropout, depth.
TABLE_4 = {
    ("pretrain_imagenet", "B/16"): (300, 0.001, 0.1, 15, 0.5, 0.0, 0.1),
    ("pretrain_imagenet", "L/16"): (300, 0.001, 0.1, 15, 0.5, 0.0, 0.1),
    ("pretrain_imagenet21k", "B/16"): (300, 0.001, 0.1, 10, 0.2, 0.0, 0.1),
    ("pretrain_imagenet21k", "L/16"): (300, 0.001, 0.1, 20, 0.5, 0.0, 0.1),
    ("pretrain_jft300m", "S/32"): (5, 0.003, 0.03, 0, 0.0, 0.0, 0.0),
    ("pretrain_jft300m", "S/16"): (5, 0.003, 0.03, 0, 0.0, 0.0, 0.0),
    ("pretrain_jft300m", "B/32"): (7, 0.003, 0.03, 0, 0.0, 0.0, 0.0),
    ("pretrain_jft300m", "B/16"): (7, 0.003, 0.03, 0, 0.0, 0.0, 0.0),
    ("pretrain_jft300m", "L/32"): (7, 0.001, 0.03, 0, 0.0, 0.0, 0.0),
    ("pretrain_jft300m", "L/16"): (7, 0.001, 0.03, 0, 0.0, 0.0, 0.0),
    ("pretrain_jft300m", "L/16-14ep"): (14, 0.001, 0.03, 0, 0.0, 0.0, 0.0),
    ("pretrain_jft300m", "H/14"): (14, 0.001, 0.03, 0, 0.0, 0.0, 0.0),
}


def test_every_pre_training_row_has_table_4s_numbers():
    assert set(TABLE_4) == {(name, row) for name, row in ROWS if name.startswith("pretrain")}
    for (name, row), expected in TABLE_4.items():
        config = read(name, row)
        augment, optimizer, model = config.augment, config.optimizer, config.model
        got = (config.total.epochs, optimizer.learning_rate, optimizer.weight_decay, augment.randaugment_magnitude)
        assert (*got, augment.mixup, model.dropout, model.stoch_depth) == expected
        assert augment.randaugment_layers == (2 if augment.randaugment_magnitude else 0)
        assert (config.batch_size, config.image_size, optimizer.name, optimizer.clip_norm) == (4096, 224, "adam", 1.0)
        assert (optimizer.b1, optimizer.b2, config.schedule.decay, config.schedule.warmup.steps) == (0.9, 0.999, "linear", 10_000)


@pytest.mark.parametrize("name, epochs, steps", [("pretrain_imagenet", 300, 93_835), ("pretrain_imagenet21k", 300, 1_039_828)])
def test_epochs_are_the_papers_steps(name: str, epochs: int, steps: int):
    config = read(name, "B/16")
    assert config.total.epochs == epochs
    assert abs(steps_of(config.total, batch_size=config.batch_size, num_examples=IMAGES[name]) - steps) <= 1


@pytest.mark.parametrize("name, row", TABLE_4)
def test_the_training_images_of_every_pre_training_row_are_of_the_size_that_the_model_sees(name: str, row: str):
    config = read(name, row)
    transform = train_transform(config.augment, config.image_size)
    for seed, photograph in enumerate(load_sample_images().images * 4):
        seen = transform(photograph, np.random.default_rng(seed))
        assert (seen.shape, seen.dtype, seen.flags.c_contiguous) == ((224, 224, 3), np.uint8, True)


@pytest.mark.parametrize("name, row", [("pretrain_imagenet", "B/16"), ("pretrain_imagenet21k", "L/16")])
def test_pre_training_with_randaugment_mixup_dropout_and_stochastic_depth_runs_on_prepared_data(name, row, tmp_path: Path):
    """Return a row's config with a narrow model and few images per step, so that it takes seconds.

    Its resolution, patches and classes are unchanged.
    """
    config = read(name, row)
    prepare_photographs(tmp_path, config.num_classes)
    config.data = dataset("tfds:photographs", "train", data_dir=str(tmp_path))
    config.total, config.batch_size = duration(steps=3), 4
    config.model.num_blocks, config.model.hidden_dim, config.model.tokens_mlp_dim, config.model.channels_mlp_dim = 2, 16, 8, 16
    config.model.dropout = 0.1  # The paper's search includes dropout. The rows that it chose have none.
    validate(config)
    augment, model = config.augment, config.model
    assert augment.randaugment_layers == 2 and augment.mixup > 0 and model.stoch_depth > 0 and model.variant.endswith("/16")

    mesh = make_mesh(1, jax.devices()[:1])
    program = make_program(config, total_steps=3, warmup_steps=0)
    state = program.init_state(mesh, program.init_params(mesh))
    step, _ = program.compile_step(mesh, max_labels=1)
    source = open_source(config.data)
    batches = train_batches(
        source, train_transform(augment, config.image_size, program.host_transform), loader_config(), seed=0, batch_size=4,
        batch_indices=np.arange(4), steps=range(3), unreadable=UnreadableImages(),
    )  # fmt: skip
    losses = []
    for batch in batches:
        state, metrics = step(state, to_global(batch, mesh))
        losses.append(float(metrics["loss"]))
    bias, classes = model.head_bias_init, config.num_classes
    assert len(losses) == 3 and np.isfinite(losses).all() and losses[1] != losses[0]
    # The kernel of the head is zero, so the logits are its biases.
    assert losses[0] == pytest.approx(classes * np.log1p(np.exp(bias)) - bias, rel=1e-3)


def prepare_photographs(directory: Path, num_classes: int) -> None:
    """Make the TFDS dataset `photographs`: 16 JPEG files of 500 x 375 pixels, with labels from the first class to the last."""
    import tensorflow_datasets as tfds

    class Photographs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None  # It downloads nothing.

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=num_classes)
            features = {"image": tfds.features.Image(encoding_format="jpeg"), "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            files = [cv2.imencode(".jpg", cv2.resize(image, (500, 375)))[1] for image in load_sample_images().images]
            for i in range(16):
                yield i, {"image": files[i % 2].tobytes(), "label": i * (num_classes - 1) // 15}

    Photographs(data_dir=directory, file_format="array_record").download_and_prepare()


FINETUNE_ROWS = list(module("finetune")["ROWS"])


@pytest.mark.parametrize("row", FINETUNE_ROWS)
@pytest.mark.parametrize(
    ("pixels", "size", "resized_to", "eval_resize"),
    [("", 224, 256, "small"), (",224", 224, 256, "small"), (",448", 448, 512, "square")],
)
def test_fine_tuning_crops_as_the_authors_do_and_evaluates_as_the_papers_tables(row, pixels, size, resized_to, eval_resize):
    """The evaluation is that of Tables 3 and 2 (supplement C), the training crop that of big_vision's configs/transfer.py."""
    config = read("finetune", row + pixels)
    validate(config)
    assert config.image_size == size
    assert (config.evals.test.resize, config.evals.test.resize_size) == (eval_resize, 0)  # 0: image_size x 256/224
    y, x = np.mgrid[:600, :800]
    photograph = np.stack([y // 4, x // 4, np.zeros_like(x)], -1).astype(np.uint8)
    large = resize_small(photograph, resized_to)
    config.augment.flip = False
    rng = np.random.default_rng(0)
    seen = train_transform(config.augment, config.image_size)(photograph, rng)
    again = random_crop(large, np.random.default_rng(0), size)
    np.testing.assert_array_equal(seen, again)


def test_a_row_at_448_pixels_has_the_papers_larger_token_mixing():
    config = read("finetune", "cifar10,448")
    state = make_program(config, total_steps=10, warmup_steps=1).state_shapes(make_mesh(1))
    assert sum(x.size for x in jax.tree.leaves(state.params)) == 86_227_392 + 769 * 10


@pytest.mark.parametrize("row", ["imagenet,384", "imagenet,448,448", "448", ",448"])
def test_a_row_at_a_size_that_the_paper_has_not_is_refused(row: str):
    with pytest.raises(UserError, match="imagenet, cifar10, cifar100, pets, flowers, each also at 448"):
        read("finetune", row)


@pytest.mark.parametrize("row", module("finetune_vtab")["ROWS"])
def test_a_vtab_task_is_evaluated_on_whole_images_and_warms_up(row: str):
    """BiT's code (big_transfer) evaluates images that are resized to the model's size, and warms up in 100 steps."""
    config = read("finetune_vtab", row)
    assert config.schedule.warmup.steps == 100
    image, test = load_sample_images().images[0], config.evals.test
    seen = eval_transform(test.resize, test.resize_size, config.image_size)(image, np.random.default_rng(0))
    np.testing.assert_array_equal(seen, resize(image, config.image_size, config.image_size))


def test_imagenet_21k_holds_out_the_first_51_200_images():
    config = read("pretrain_imagenet21k", "B/16")
    assert (config.data.split, config.evals.held_out.data.split) == ("train[51200:]", "train[:51200]")


@pytest.mark.parametrize(("family", "variant"), [("vit", "B/16"), ("resnet", "R50x1")])
def test_the_fine_tuning_recipe_is_open_to_the_papers_baselines(family: str, variant: str):
    config = read("finetune", "cifar10")
    config.model.family, config.model.variant, config.image_size = family, variant, 448
    make_program(config, total_steps=10, warmup_steps=1).state_shapes(make_mesh(1))


def test_a_config_file_that_sets_an_unknown_option_fails_at_once():
    with pytest.raises(KeyError):
        dataset("digits", "train", shuffel=True)
    with pytest.raises(KeyError):
        classification(dataset("digits"), resise=3)


@pytest.mark.parametrize("row", module("small_images")["ROWS"])
def test_small_images_have_64_patches_and_a_size_that_is_said(row: str):
    config = read("small_images", row)
    validate(config)
    assert config.augment.resize_size > config.image_size == int(row)
    state = make_program(config, total_steps=100, warmup_steps=10).state_shapes(make_mesh(1))
    assert state.params["MixerBlock_0"]["token_mixing"]["Dense_0"]["kernel"].shape[0] == 64
    count = sum(x.size for x in jax.tree.leaves(state.params))
    assert f"| {row}  | {config.model.variant}   | 8 x 8   | {count / 1e6:.0f} M " in module("small_images")["__doc__"]


def test_a_row_of_small_images_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="the rows are 32, 48, 64"):
        read("small_images", "33")


def test_a_config_in_any_folder_builds_on_a_shipped_one(tmp_path: Path, monkeypatch):
    """It is the config of docs/training.md. Its folder may also be named configs and be the current folder."""
    (tmp_path / "configs").mkdir()
    shown = re.search(r"```python\n(from configs import .*?)```", (ROOT / "docs/training.md").read_text(), re.DOTALL)[1]
    (tmp_path / "configs/mine.py").write_text(shown)
    monkeypatch.chdir(tmp_path)
    for path in ("configs/mine.py", str(tmp_path / "configs/mine.py:pets")):
        config = app.read_config(path, ["--config.seed=3"])
        assert (config.optimizer.learning_rate, config.seed, config.model.variant) == (0.01, 3, "L/16")
    command = [sys.executable, str(ROOT / "train.py"), "--config=configs/mine.py", "--workdir=x", "--config.seed=-1"]
    # The seed is refused after the config has been read.
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, "config.seed is -1" in run.stderr) == (endings.TO_MEND, True), run.stderr
