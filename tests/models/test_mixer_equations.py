"""The Mixer against the equations of section 2 of arXiv 2105.01601, in NumPy float64 and with a backward pass by hand.

A layer here is a function x -> (y, backward), and backward maps the gradient of y to that of x and of the layer's parameters.
"""

import jax
import numpy as np
import pytest
from jax.tree_util import keystr, tree_flatten_with_path

from mixer_jax.models.mixer import Mixer, Size
from mixer_jax.models.registry import param_shapes

# Each row has the sizes of one problem. All sizes of a row differ, so that two axes cannot be confused.
#                 B, H, W, P, K, Size(L, C, D_C, D_S)
SHAPES = {
    "one token": (2, 4, 4, 4, 3, Size(1, 5, 9, 6)),
    "wide image": (3, 6, 14, 2, 4, Size(2, 8, 17, 11)),
    "tall image, three blocks": (2, 20, 8, 4, 6, Size(3, 12, 16, 7)),
    "no head": (2, 4, 6, 2, None, Size(2, 4, 7, 5)),
}

# This bias adds one number to all channels of a token. Every layer norm subtracts it again, so its gradient is zero.
WITHOUT_EFFECT = "token_mixing/Dense_1/bias"


def gelu(x):
    """Return GELU in its tanh form, and its derivative."""
    k = np.sqrt(2 / np.pi)
    t = np.tanh(k * (x + 0.044715 * x**3))
    return x * (1 + t) / 2, (1 + t) / 2 + x / 2 * (1 - t**2) * k * (1 + 3 * 0.044715 * x**2)


def layer_norm(p, x):
    """Return x [S, C], normalized over C."""
    centred = x - x.mean(1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
    normal = centred / deviation

    def backward(dy):
        g = dy * p["scale"]
        dx = (g - g.mean(1, keepdims=True) - normal * (g * normal).mean(1, keepdims=True)) / deviation
        return dx, {"scale": (dy * normal).sum(0), "bias": dy.sum(0)}

    return normal * p["scale"] + p["bias"], backward


def mix(p, z):
    """Return W2 gelu(W1 z + b1) + b2 for each column of z: W1 [D, N], z [N, M]. A Dense kernel is the transposed matrix."""
    w1, w2 = p["Dense_0"]["kernel"].T, p["Dense_1"]["kernel"].T
    b1, b2 = p["Dense_0"]["bias"][:, None], p["Dense_1"]["bias"][:, None]
    h, slope = gelu(w1 @ z + b1)

    def backward(dy):
        da = (w2.T @ dy) * slope
        first = {"kernel": (da @ z.T).T, "bias": da.sum(1)}
        second = {"kernel": (dy @ h.T).T, "bias": dy.sum(1)}
        return w1.T @ da, {"Dense_0": first, "Dense_1": second}

    return w2 @ h + b2, backward


def block(p, x):
    """Return Y = U + (W4 gelu(W3 LN(U)^T))^T with U = X + W2 gelu(W1 LN(X))."""
    z, norm_0_backward = layer_norm(p["LayerNorm_0"], x)
    t, tokens_backward = mix(p["token_mixing"], z)
    u = x + t
    z, norm_1_backward = layer_norm(p["LayerNorm_1"], u)
    c, channels_backward = mix(p["channel_mixing"], z.T)

    def backward(dy):
        dz, channels = channels_backward(dy.T)
        du, norm_1 = norm_1_backward(dz.T)
        du = du + dy
        dz, tokens = tokens_backward(du)
        dx, norm_0 = norm_0_backward(dz)
        grads = {"LayerNorm_0": norm_0, "token_mixing": tokens, "LayerNorm_1": norm_1, "channel_mixing": channels}
        return dx + du, grads

    return u + c.T, backward


def stem(p, image, patch):
    """Return X [S, C]. Row s is the projection of patch s. Patches are counted row by row."""
    kernel = p["kernel"]  # [P, P, 3, C]
    corners = [(i, j) for i in range(0, image.shape[0], patch) for j in range(0, image.shape[1], patch)]
    patches = [image[i : i + patch, j : j + patch] for i, j in corners]
    x = np.stack([np.einsum("ijk,ijkc->c", part, kernel) + p["bias"] for part in patches])

    def backward(dx):
        d_image, d_kernel = np.zeros_like(image), np.zeros_like(kernel)
        for (i, j), part, row in zip(corners, patches, dx, strict=True):
            d_image[i : i + patch, j : j + patch] = kernel @ row
            d_kernel += part[..., None] * row
        return d_image, {"kernel": d_kernel, "bias": dx.sum(0)}

    return x, backward


def mixer(params, image, patch):
    """Return the logits [K] of an image [H, W, 3], or the pooled features [C] without a head, and the backward function."""
    x, stem_backward = stem(params["stem"], image, patch)
    num_blocks = sum(name.startswith("MixerBlock_") for name in params)
    block_backwards = []
    for i in range(num_blocks):
        x, backward = block(params[f"MixerBlock_{i}"], x)
        block_backwards.append(backward)
    x, norm_backward = layer_norm(params["pre_head_layer_norm"], x)
    tokens, pooled = len(x), x.mean(0)
    head = params.get("head")

    def whole_backward(d_logits):
        grads = {}
        d_pooled = d_logits
        if head:
            grads["head"] = {"kernel": np.outer(pooled, d_logits), "bias": d_logits}
            d_pooled = head["kernel"] @ d_logits
        dx, grads["pre_head_layer_norm"] = norm_backward(np.tile(d_pooled / tokens, (tokens, 1)))
        for i in reversed(range(num_blocks)):
            dx, grads[f"MixerBlock_{i}"] = block_backwards[i](dx)
        d_image, grads["stem"] = stem_backward(dx)
        return d_image, grads

    return (pooled @ head["kernel"] + head["bias"] if head else pooled), whole_backward


def mixer_of_batch(params, images, patch, d_logits):
    """Return the logits [B, K], and the gradients of sum(logits * d_logits) by the images [B, H, W, 3] and the parameters."""
    logits, backwards = zip(*(mixer(params, image, patch) for image in images), strict=True)
    d_images, grads = zip(*(backward(d) for backward, d in zip(backwards, d_logits, strict=True)), strict=True)
    return np.stack(logits), np.stack(d_images), jax.tree.map(lambda *parts: sum(parts), *grads)


def random_problem(shape):
    """Return the model, and random float32 parameters (none has its initial 0), images and gradients of the output."""
    batch, height, width, patch, classes, size = SHAPES[shape]
    model = Mixer(num_classes=classes, patch_size=patch, size=size)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)
    shapes = param_shapes(model, images)
    params = jax.tree.map(lambda x: rng.normal(scale=max(0.3, x.shape[0] ** -0.5), size=x.shape).astype(np.float32), shapes)
    d_logits = rng.normal(size=(batch, classes or size.hidden_dim)).astype(np.float32)
    return model, params, images, d_logits


def to_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def named(tree):
    return {keystr(path, simple=True, separator="/"): leaf for path, leaf in tree_flatten_with_path(tree)[0]}


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_all_gradients_are_those_of_the_equations(shape):
    model, params, images, d_logits = random_problem(shape)

    @jax.jit
    def logits_and_gradients(params, images):
        logits, vjp = jax.vjp(lambda params, images: model.apply({"params": params}, images)[0], params, images)
        grads, d_images = vjp(d_logits)
        return logits, d_images, grads

    actual = named(logits_and_gradients(params, images))
    expected = named(mixer_of_batch(to_float64(params), to_float64(images), model.patch_size, to_float64(d_logits)))

    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        if name.endswith(WITHOUT_EFFECT):
            assert np.linalg.norm(wanted) < 1e-12, name
            assert np.linalg.norm(actual[name]) < 1e-5, name
        else:
            assert np.linalg.norm(wanted) > 1e-2, f"{name} says nothing"
            assert np.linalg.norm(actual[name] - wanted) / np.linalg.norm(wanted) < 1e-5, name


@pytest.mark.parametrize("shape", SHAPES)
def test_the_backward_pass_by_hand_is_the_derivative_of_the_equations(shape):
    model, *problem = random_problem(shape)
    params, images, d_logits = to_float64(problem)

    def value(params, images):
        return np.sum(mixer_of_batch(params, images, model.patch_size, d_logits)[0] * d_logits)

    _, d_images, grads = mixer_of_batch(params, images, model.patch_size, d_logits)
    point, gradient = (params, images), (grads, d_images)
    leaves, tree = jax.tree.flatten(point)
    rng = np.random.default_rng(0)
    for i, (name, slope) in enumerate(named(gradient).items()):
        direction = [np.zeros_like(x) for x in leaves]
        direction[i] = rng.normal(size=leaves[i].shape)
        ahead, behind = (tree.unflatten([x + s * d for x, d in zip(leaves, direction, strict=True)]) for s in (1e-5, -1e-5))
        difference = (value(*ahead) - value(*behind)) / 2e-5
        assert np.isclose(np.sum(slope * direction[i]), difference, rtol=1e-6, atol=1e-8), name
