"""BiT-ResNet against its definition in NumPy float64, loop by loop; what weight standardisation and group norm leave out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixer_jax.models.resnet import GroupNorm, ResNet, Size, StandardizedConv

SIZE = Size(units=(1, 2), base_width=32)


def conv(p, x, stride):
    """x [h, w, I]; the kernel [k, k, I, O] with mean 0 and variance 1 for each output; k // 2 zeros around x."""
    kernel = p["standardized_conv2d"]["kernel"]
    kernel = (kernel - kernel.mean((0, 1, 2))) / np.sqrt(kernel.var((0, 1, 2)) + 1e-10)
    size = len(kernel)
    margin = size // 2
    x = np.pad(x, ((margin, margin), (margin, margin), (0, 0)))
    rows, columns = ((side - size) // stride + 1 for side in x.shape[:2])
    windows = [[x[i * stride :, j * stride :][:size, :size] for j in range(columns)] for i in range(rows)]
    return np.einsum("hwijk,ijko->hwo", windows, kernel)


def norm_relu(p, x):
    """Over all positions and the channels of one of 32 groups, neighbours being in one group."""
    groups = x.reshape(*x.shape[:2], 32, -1)
    mean, variance = groups.mean((0, 1, 3), keepdims=True), groups.var((0, 1, 3), keepdims=True)
    normal = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    return np.maximum(normal * p["group_norm"]["gamma"] + p["group_norm"]["beta"], 0)


def unit(p, x, stride):
    y = norm_relu(p["a"], x)
    shortcut = conv(p["a"]["proj"], y, stride) if "proj" in p["a"] else x
    y = conv(p["a"], y, 1)
    y = conv(p["b"], norm_relu(p["b"], y), stride)
    return shortcut + conv(p["c"], norm_relu(p["c"], y), 1)


def resnet(p, image):
    """One image [H, W, 3] -> logits [K]."""
    x = np.pad(conv(p["root_block"], image, 2), ((1, 1), (1, 1), (0, 0)))  # zeros, and the maximum sees them
    rows, columns = ((side - 3) // 2 + 1 for side in x.shape[:2])
    x = np.array([[x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(columns)] for i in range(rows)])
    for block in ("block1", "block2"):
        for name in sorted(p[block]):
            x = unit(p[block][name], x, 2 if (block, name) == ("block2", "unit01") else 1)
    y = norm_relu(p, x).mean((0, 1))
    return y @ p["head"]["conv2d"]["kernel"][0, 0] + p["head"]["conv2d"]["bias"]


def random_params(module, *inputs):
    """Parameters of which none is at its initial zero or one."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda x: rng.normal(scale=0.4, size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 22), (1, 3)])
def test_logits_are_those_of_the_definition_for_images_of_any_size(height, width):
    model = ResNet(num_classes=5, size=SIZE)
    images = np.random.default_rng(1).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)
    params = random_params(model, images)
    actual, _ = jax.jit(model.apply)({"params": params}, images)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    expected = np.stack([resnet(exact, np.asarray(image, np.float64)) for image in images])
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_a_kernel_means_the_same_whatever_its_scale_and_mean_are():
    module = StandardizedConv(features=6, kernel_size=3, stride=2, dtype=jnp.float32)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 8, 4)), jnp.float32)
    kernel = jnp.asarray(random_params(module, x)["kernel"])
    changed = kernel * np.linspace(0.5, 4, 6, dtype=np.float32)[None, None, None] + np.float32(3)
    outputs = [module.apply({"params": {"kernel": k}}, x) for k in (kernel, changed)]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-3)


def test_a_standardised_kernel_has_variance_1_down_to_a_variance_of_1e_10():
    """An output on the impulse [1] is the kernel's middle: x / sqrt(x^2 + 1e-10) for the kernel (-x, x)."""
    module = StandardizedConv(features=1, kernel_size=1, stride=1, dtype=jnp.float32)
    for x in (1.0, 1e-3, 1e-5):
        kernel = jnp.array([-x, x], jnp.float32).reshape(1, 1, 2, 1)
        y = module.apply({"params": {"kernel": kernel}}, jnp.array([0, 1], jnp.float32).reshape(1, 1, 1, 2))
        np.testing.assert_allclose(y.item(), x / np.sqrt(x**2 + 1e-10), rtol=1e-5)


def test_group_norm_of_bfloat16_has_statistics_of_float32():
    """Around 100, bfloat16 has steps of 0.5: sums in it would be off by far more than the rounding of the output."""
    x = jnp.asarray(100 + np.random.default_rng(0).normal(size=(2, 5, 5, 64)), jnp.bfloat16)
    params = {"params": {"gamma": jnp.ones(64), "beta": jnp.zeros(64)}}
    exact = GroupNorm(jnp.float32).apply(params, x.astype(jnp.float32))
    rough = GroupNorm(jnp.bfloat16).apply(params, x)
    assert rough.dtype == jnp.bfloat16
    np.testing.assert_allclose(rough.astype(jnp.float32), exact, rtol=2**-8)
