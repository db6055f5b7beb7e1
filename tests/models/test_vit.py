"""The Vision Transformer against the equations of arXiv 2010.11929 in NumPy float64; where its dropout is; its positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.errors import UserError
from mixer_jax.models.registry import param_shapes
from mixer_jax.models.vit import Size, VisionTransformer

# One row a shape of the problem. No two sizes of a row are equal, so that no axis can stand in for another.
#                 B, H, W, P, K, Size(L, C, D_C, heads), options
SHAPES = {
    "class token": (3, 6, 14, 2, 4, Size(2, 12, 17, 3), {}),
    "class token, pre-logits": (2, 20, 8, 4, 6, Size(1, 16, 9, 4), {"pre_logits_dim": 7}),
    "mean": (2, 9, 15, 3, 5, Size(3, 8, 13, 2), {"pooling": "mean"}),
    "mean, pre-logits, no head": (2, 4, 6, 2, None, Size(2, 10, 7, 5), {"pooling": "mean", "pre_logits_dim": 9}),
}


def layer_norm(p, x):
    """x [T, C], normalised over C."""
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def attention(p, x):
    """Each head by itself: softmax(q k^T / sqrt(C / heads)) v; then the sum of the heads' projections."""
    q, k, v = (np.einsum("tc,chd->htd", x, p[part]["kernel"]) + p[part]["bias"][:, None] for part in ("query", "key", "value"))
    y = p["out"]["bias"]
    for head in range(len(q)):
        scores = np.exp(q[head] @ k[head].T / np.sqrt(q.shape[-1]))
        y = y + scores / scores.sum(1, keepdims=True) @ v[head] @ p["out"]["kernel"][head]
    return y


def mlp(p, x):
    h = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
    h = h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3))) / 2
    return h @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]


def transformer(p, image, patch):
    """One image [H, W, 3] -> logits [K], or pre-logits without a head."""
    corners = [(i, j) for i in range(0, image.shape[0], patch) for j in range(0, image.shape[1], patch)]
    patches = [image[i : i + patch, j : j + patch] for i, j in corners]
    z = np.stack([np.einsum("ijk,ijkc->c", x, p["embedding"]["kernel"]) + p["embedding"]["bias"] for x in patches])
    if "cls" in p:
        z = np.concatenate([p["cls"][0], z])
    encoder = p["Transformer"]
    z = z + encoder["posembed_input"]["pos_embedding"][0]
    for i in range(sum(name.startswith("encoderblock_") for name in encoder)):
        block = encoder[f"encoderblock_{i}"]
        z = z + attention(block["MultiHeadDotProductAttention_1"], layer_norm(block["LayerNorm_0"], z))
        z = z + mlp(block["MlpBlock_3"], layer_norm(block["LayerNorm_2"], z))
    z = layer_norm(encoder["encoder_norm"], z)
    y = z[0] if "cls" in p else z.mean(0)
    if "pre_logits" in p:
        y = np.tanh(y @ p["pre_logits"]["kernel"] + p["pre_logits"]["bias"])
    return y @ p["head"]["kernel"] + p["head"]["bias"] if "head" in p else y


def random_params(model, images):
    """Parameters of which none is at its initial zero or one."""
    rng = np.random.default_rng(0)
    shapes = param_shapes(model, images)
    return jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_the_equations(shape):
    batch, height, width, patch, classes, size, options = SHAPES[shape]
    model = VisionTransformer(num_classes=classes, patch_size=patch, size=size, **options)
    images = np.random.default_rng(1).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)
    params = random_params(model, images)
    actual, _ = jax.jit(model.apply)({"params": params}, images)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    expected = np.stack([transformer(exact, np.asarray(image, np.float64), patch) for image in images])
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


# Which parameters are not zero, and what an element of the first block's output then is if it passes, and how often.
IDENTITY = np.eye(16)
ATTENTION, MLP = "MultiHeadDotProductAttention_1", "MlpBlock_3"
DROPPED = {
    "position embeddings": ({("posembed_input", "pos_embedding"): 1.0}, 2.0, 0.5),
    "the output of attention": (
        {(ATTENTION, "value", "bias"): 1.0, (ATTENTION, "out", "kernel"): IDENTITY.reshape(4, 4, 16)}, 2.0, 0.5,
    ),
    "both dense layers of the MLP": (
        {(MLP, "Dense_0", "bias"): 20.0, (MLP, "Dense_1", "kernel"): IDENTITY}, 80.0, 0.25,  # gelu(20) = 20
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", DROPPED)
def test_dropout_follows_the_position_embeddings_and_each_dense_layer_but_neither_values_nor_attention_weights(place):
    settings, passed, probability = DROPPED[place]
    model = VisionTransformer(num_classes=2, patch_size=1, size=Size(1, 16, 16, 4), dropout=0.5)
    images = jnp.zeros((16, 4, 4, 3), jnp.float32)
    params = jax.tree.map(np.zeros_like, random_params(model, images))
    for path, value in settings.items():
        encoder = params["Transformer"]
        *parents, last = path if path[0] in encoder else ("encoderblock_0", *path)
        for name in parents:
            encoder = encoder[name]
        encoder[last] = np.broadcast_to(value, encoder[last].shape).astype(np.float32)
    rngs = {"dropout": jax.random.key(0)}
    _, features = jax.jit(lambda params: model.apply({"params": params}, images, train=True, rngs=rngs))(params)
    outputs = features["encoderblock_0"]
    np.testing.assert_allclose(np.unique(outputs), [0.0, passed], rtol=1e-5)
    assert np.mean(outputs > 0) == pytest.approx(probability, abs=0.05)


def test_the_softmax_is_in_float32_also_in_bfloat16():
    model = VisionTransformer(num_classes=2, patch_size=4, size=Size(1, 8, 8, 2), dtype=jnp.bfloat16)
    images = np.zeros((2, 8, 8, 3), np.float32)
    params = {"params": random_params(model, images)}
    exponentials = [
        line for line in str(jax.make_jaxpr(model.apply)(params, images)).splitlines() if "= exp" in line and "[2,2,5,5]" in line
    ]
    assert [line.split(":")[1].startswith("f32") for line in exponentials] == [True]


@pytest.mark.parametrize(("pooling", "positions"), [("token", 10), ("mean", 9)])
@pytest.mark.parametrize("size", [8, 16])
def test_another_number_of_positions_than_the_parameters_have_is_refused_with_a_word_on_interpolation(pooling, positions, size):
    model = VisionTransformer(num_classes=2, patch_size=4, size=Size(1, 8, 8, 2), pooling=pooling)
    params = random_params(model, np.zeros((1, 12, 12, 3), np.float32))
    with pytest.raises(UserError, match=rf"position embeddings for {positions} tokens.*for this image size.*interpolates"):
        jax.eval_shape(model.apply, {"params": params}, jnp.zeros((1, size, size, 3)))
