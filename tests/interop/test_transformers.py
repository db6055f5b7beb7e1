"""Weights of Hugging Face's transformers in our models, and ours there: a part of `make test-interop`."""

import jax
import numpy as np
import pytest
import torch
from interop.drawn import BOUNDS, draw, images, relative_error
from transformers import BitConfig, BitForImageClassification, ViTConfig, ViTForImageClassification

from mixer_jax.checkpoints.weights import load_weights, save_weights, tree_of
from mixer_jax.models.registry import make_model

MODELS = {  # with our form of GELU and our epsilon
    "ViT-B/16": lambda: ViTForImageClassification(
        ViTConfig(num_labels=1000, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
    ),
    "BiT-R50x1": lambda: BitForImageClassification(BitConfig(num_labels=1000)),
}


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(images()).permute(0, 3, 1, 2)).logits.numpy()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_transformers_has_the_same_logits_here_and_comes_back_with_the_same_bits(name, tmp_path, capsys):
    model = MODELS[name]().eval()
    drawn = draw({key: tuple(x.shape) for key, x in model.state_dict().items()})
    model.load_state_dict({key: torch.from_numpy(x) for key, x in drawn.items()})
    model.save_pretrained(tmp_path / "there")

    weights = load_weights(str(tmp_path / "there" / "model.safetensors"))
    assert str(weights.model).startswith(name)
    ours = make_model(weights.model.config(), 1000)
    here = np.asarray(jax.jit(ours.apply)({"params": tree_of(weights.arrays)}, images())[0])
    error = relative_error(here, logits(model))
    with capsys.disabled():
        print(f"\n{name} of transformers: logits differ by {error:.1e}")
    (bound,) = filter(None, BOUNDS[f"transformers {name}"])
    assert error < bound

    (tmp_path / "back").mkdir()
    model.config.save_pretrained(tmp_path / "back")
    save_weights(weights, str(tmp_path / "back" / "model.safetensors"), "transformers")
    back = type(model).from_pretrained(tmp_path / "back").eval()
    np.testing.assert_array_equal(logits(back), logits(model))
