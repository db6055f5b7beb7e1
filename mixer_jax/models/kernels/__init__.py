"""The operations of the models, each in the form that a platform's compiler runs fastest: portable.py defines them."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from mixer_jax.models.kernels import cpu, portable, tpu

# `with for_platform("tpu"):` takes the TPU's form of everything traced inside, whatever the program is lowered for, and
# "portable" the definitions alone.
for_platform = jax.make_user_context(None)


def per_platform(definition: Callable, **forms: Callable) -> Callable:
    """Select, among equivalent implementations, the one for the platform that the program is lowered for.

    Where a mesh is exposed to the model, that is the platform of its devices. Elsewhere all implementations are traced, which
    takes longer, and one is chosen when the program is lowered. An exported program has all of them.
    """

    @functools.wraps(definition)
    def operation(*arrays: Any, **options: Any) -> Any:
        device = jax.sharding.get_abstract_mesh().abstract_device
        platform = for_platform.value or (device and device.platform)
        if platform:
            return forms.get(platform, definition)(*arrays, **options)
        bound = {name: functools.partial(form, **options) for name, form in forms.items()}
        return jax.lax.platform_dependent(*arrays, default=functools.partial(definition, **options), **bound)

    return operation


layer_norm = per_platform(portable.layer_norm, cpu=cpu.layer_norm)
dense = per_platform(portable.dense, cpu=cpu.dense, tpu=tpu.dense)
token_dense = per_platform(portable.token_dense, cpu=cpu.token_dense)
norm_dense_gelu = per_platform(portable.norm_dense_gelu, cpu=cpu.norm_dense_gelu, tpu=tpu.norm_dense_gelu)
norm_token_dense_gelu = per_platform(portable.norm_token_dense_gelu, cpu=cpu.norm_token_dense_gelu, tpu=tpu.norm_token_dense_gelu)
store_gradient = per_platform(portable.store_gradient, tpu=tpu.store_gradient)
drop_zero_gradient = per_platform(portable.drop_zero_gradient, tpu=jax.lax.stop_gradient)
