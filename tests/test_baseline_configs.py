"""The recipes of the paper's baselines, ViT and BiT, are valid and have the numbers of their sources."""

import runpy

import jax
import pytest
from conftest import ROOT
from ml_collections import ConfigDict

from mixer_jax.errors import UserError
from mixer_jax.parallel import make_mesh
from mixer_jax.training.program import make_program
from mixer_jax.training.schedule import make_schedule
from mixer_jax.validation import validate

FILES = ("pretrain_vit_jft300m", "pretrain_vit_imagenet21k", "pretrain_vit_imagenet", "pretrain_bit_jft300m")


def module(name: str) -> dict:
    return runpy.run_path(str(ROOT / "configs" / f"{name}.py"))


ROWS = [(name, row) for name in FILES for row in module(name)["ROWS"]]
# Table 3 of arXiv 2010.11929, typed apart from the configs: epochs, learning rate, decay, weight decay, dropout.
VIT_TABLE_3 = {
    ("pretrain_vit_jft300m", "B/32"): (7, 8e-4, "linear", 0.1, 0.0),
    ("pretrain_vit_jft300m", "B/16"): (7, 8e-4, "linear", 0.1, 0.0),
    ("pretrain_vit_jft300m", "L/32"): (7, 6e-4, "linear", 0.1, 0.0),
    ("pretrain_vit_jft300m", "L/16"): (7, 4e-4, "linear", 0.1, 0.0),
    ("pretrain_vit_jft300m", "L/16-14ep"): (14, 4e-4, "linear", 0.1, 0.0),
    ("pretrain_vit_jft300m", "H/14"): (14, 3e-4, "linear", 0.1, 0.0),
    ("pretrain_bit_jft300m", "R50x1"): (7, 1e-3, "linear", 0.1, 0.0),
    ("pretrain_bit_jft300m", "R50x2"): (7, 1e-3, "linear", 0.1, 0.0),
    ("pretrain_bit_jft300m", "R101x1"): (7, 8e-4, "linear", 0.1, 0.0),
    ("pretrain_bit_jft300m", "R152x1"): (7, 6e-4, "linear", 0.1, 0.0),
    ("pretrain_bit_jft300m", "R152x2"): (7, 6e-4, "linear", 0.1, 0.0),
    ("pretrain_vit_imagenet21k", "L/16-90ep"): (90, 1e-3, "linear", 0.03, 0.1),
    ("pretrain_vit_imagenet21k", "L/16-30ep"): (30, 1e-3, "linear", 0.03, 0.1),
}
# The settings of AugReg in big_vision's configs vit_i1k.py and vit_i21k.py: RandAugment, mixup, loss, what the head reads.
AUGREG = {
    ("pretrain_vit_imagenet", "B/16"): (15, 0.5, "softmax", "token", 768),
    ("pretrain_vit_imagenet", "L/16"): (15, 0.5, "softmax", "token", 1024),
    ("pretrain_vit_imagenet21k", "B/16-300ep"): (10, 0.2, "sigmoid", "mean", 0),
    ("pretrain_vit_imagenet21k", "L/16-300ep"): (15, 0.5, "sigmoid", "mean", 0),
}
MILLIONS = {"B/16": 86, "B/32": 88, "L/16": 307, "L/32": 307, "H/14": 632}  # Table 1 of arXiv 2010.11929; B/32 by timm


def read(name: str, row: str) -> ConfigDict:
    return module(name)["get_config"](row)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_a_baseline_is_valid_and_its_state_can_be_made(name: str, row: str):
    config = read(name, row)
    validate(config)
    with pytest.raises((KeyError, AttributeError), match="learning_rate"):
        config.optimizer.learning_rat = 1.0
    state = make_program(config, total_steps=100_000, warmup_steps=10_000).state_shapes(make_mesh(1))
    count = sum(
        x.size for path, x in jax.tree_util.tree_leaves_with_path(state.params) if path[0].key not in ("head", "pre_logits")
    )
    if config.model.family == "vit":
        assert count / 1e6 == pytest.approx(MILLIONS[config.model.variant], rel=0.02)


def test_every_baseline_has_the_numbers_of_its_source():
    assert {*VIT_TABLE_3, *AUGREG} == set(ROWS)
    for (name, row), expected in VIT_TABLE_3.items():
        config = read(name, row)
        optimizer = config.optimizer
        got = (config.total.epochs, optimizer.learning_rate, config.schedule.decay, optimizer.weight_decay, config.model.dropout)
        assert got == expected
        assert config.augment.randaugment_layers == config.augment.mixup == 0 and config.schedule.end_learning_rate == 1e-5
    for (name, row), expected in AUGREG.items():
        config = read(name, row)
        augment, model = config.augment, config.model
        head = (config.loss.kind, model.pooling, model.pre_logits_dim)
        assert (augment.randaugment_magnitude, augment.mixup, *head) == expected and augment.randaugment_layers == 2
        assert (config.total.epochs, config.optimizer.learning_rate, config.optimizer.weight_decay) == (300, 0.001, 0.1)
        assert (config.schedule.decay, config.schedule.end_learning_rate) == ("cosine", 0.0)
    for name, row in ROWS:
        config = read(name, row)
        assert (config.batch_size, config.image_size, config.optimizer.name, config.optimizer.clip_norm) == (4096, 224, "adam", 1)
        assert (config.optimizer.b1, config.optimizer.b2, config.schedule.warmup.steps) == (0.9, 0.999, 10_000)


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_that_no_source_has_is_refused_with_those_that_there_are(name: str):
    for row in ("S/16", "R200x3", "R152x4", ""):
        with pytest.raises(UserError) as error:
            module(name)["get_config"](row)
        assert all(known in str(error.value) for known in module(name)["ROWS"])


@pytest.mark.parametrize(("family", "variant", "pixels"), [("vit", "L/16", 512), ("vit", "H/14", 518), ("resnet", "R152x2", 224)])
def test_a_baseline_is_fine_tuned_by_the_same_config_at_its_own_size(family: str, variant: str, pixels: int):
    config = read("finetune", "imagenet")
    config.model.family, config.model.variant, config.image_size = family, variant, pixels
    config.ema_decay = 0.9999
    validate(config)
    make_program(config, total_steps=10, warmup_steps=1).state_shapes(make_mesh(1))


# Section 3.1.1 of arXiv 1912.11370, in epochs. ImageNet-21k has 14 197 122 - 51 200 images to train on, JFT about 303 million.
@pytest.mark.parametrize(
    ("row", "images", "epochs", "falls"),
    [("imagenet21k", 14_145_922, 90, (30, 60, 80)), ("jft300m", 303_000_000, 40, (10, 23, 30, 37))],
)
def test_bit_with_sgd_lowers_its_learning_rate_after_the_papers_epochs(
    row: str, images: int, epochs: int, falls: tuple[int, ...]
):
    config = read("pretrain_bit_sgd", row)
    validate(config)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.momentum, config.total.epochs, config.batch_size) == ("sgd", 0.9, epochs, 4096)
    steps_of_epoch = images / 4096
    schedule = make_schedule(config.schedule, optimizer.learning_rate, round(epochs * steps_of_epoch), 5000)
    assert float(schedule(5000)) == pytest.approx(0.48) and float(schedule(2500)) == pytest.approx(0.24)
    for number, epoch in enumerate(falls):
        before, after = (float(schedule(round((epoch + shift) * steps_of_epoch))) for shift in (-0.01, 0.01))
        assert (before, after) == pytest.approx((0.48 / 10**number, 0.48 / 10 ** (number + 1)))
    make_program(config, total_steps=100_000, warmup_steps=5000).state_shapes(make_mesh(1))


# The schedules and sizes of big_transfer's bit_hyperrule.py, typed apart from the config.
HYPERRULE = {
    "imagenet": (20_000, 500, (6000, 12_000, 18_000), 0.1, 512, 480),
    "cifar10": (10_000, 500, (3000, 6000, 9000), 0.1, 160, 128),
    "cifar100": (10_000, 500, (3000, 6000, 9000), 0.1, 160, 128),
    "pets": (500, 100, (200, 300, 400), 0.0, 512, 480),
    "flowers": (500, 100, (200, 300, 400), 0.0, 512, 480),
}


def test_the_hyperrule_is_that_of_its_code():
    assert HYPERRULE.keys() == module("finetune_bit")["ROWS"].keys()
    for row, (steps, warmup, falls, mixup, resized, size) in HYPERRULE.items():
        config = read("finetune_bit", row)
        validate(config)
        assert (config.total.steps, config.schedule.warmup.steps, config.augment.mixup) == (steps, warmup, mixup)
        assert (config.augment.resize_size, config.image_size) == (resized, size)
        schedule = make_schedule(config.schedule, config.optimizer.learning_rate, steps, warmup)
        rates = [float(schedule(step)) for edge in falls for step in (edge - 1, edge + 1)]
        assert rates == pytest.approx([3e-3, 3e-4, 3e-4, 3e-5, 3e-5, 3e-6])
        assert (config.data.source, config.data.split) == (read("finetune", row).data.source, read("finetune", row).data.split)
