"""timm's side of `benchmarks.beside_timm` has the same model as ours, and can be timed with every setting."""

import jax
import pytest
import torch
from tiny_config import get_config

from benchmarks.beside_timm import settings
from benchmarks.peers import timm as timms_side
from mixer_jax.models.registry import make_model


@pytest.mark.parametrize("variant", ["S/32", "S/16", "B/32", "B/16", "L/32", "L/16", "H/14"])
def test_timms_model_has_as_many_parameters_as_ours(variant):
    config = get_config()
    config.model.update(variant=variant, num_blocks=0, hidden_dim=0, tokens_mlp_dim=0, channels_mlp_dim=0)
    config.update(image_size=224, num_classes=1000)
    model = make_model(config.model, config.num_classes)
    ours = jax.eval_shape(lambda: model.init(jax.random.key(0), jax.numpy.zeros((1, 224, 224, 3))))["params"]
    with torch.device("meta"):
        theirs = timms_side.MlpMixer(**timms_side.size(settings("step", config)))
    assert sum(x.numel() for x in theirs.parameters()) == sum(x.size for x in jax.tree.leaves(ours))


@pytest.mark.parametrize("kind", ["step", "predict"])
@pytest.mark.parametrize(
    "changes", [{}, {"dtype": "bfloat16"}, {"loss": "sigmoid", "mixup": 0.0, "optimizer": "sgd", "clip_norm": 0}]
)
def test_every_form_of_the_work_can_be_done(kind, changes):
    run_once = timms_side.make_run_once(settings(kind, get_config()) | changes)
    run_once()
    run_once()
