"""Tests that every family has the logits that timm's models computed with the same parameters.

golden_logits.json comes from tests/interop/golden.py; `make test-interop` checks it, and compares more with timm itself.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from interop.drawn import MODELS, draw, images, relative_error

from mixer_jax.checkpoints.formats import get_format
from mixer_jax.checkpoints.weights import expected_signatures, tree_of
from mixer_jax.models.identify import ModelSpec
from mixer_jax.models.registry import make_model

GOLDEN = json.loads((Path(__file__).parent / "golden_logits.json").read_text())


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_timm(name):
    family, variant = MODELS[name]
    model, format = ModelSpec(family, {"variant": variant}, 1000, 224), get_format("timm", family)
    zeros = {path: np.broadcast_to(np.float32(0), shape) for path, (_, shape) in expected_signatures(model).items()}
    drawn = draw({theirs: x.shape for theirs, x in format.to_theirs(zeros).items()})
    params = tree_of(format.to_ours(drawn))
    logits = jax.jit(make_model(model.config(), 1000).apply)({"params": params}, images())[0]
    golden = np.array(GOLDEN[name])
    assert relative_error(np.asarray(logits)[:, : golden.shape[1]], golden) < 1e-4
    assert np.abs(golden).max() > 0.1 and np.abs(golden[0] - golden[1]).max() > 0.1
