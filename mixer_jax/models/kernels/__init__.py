"""The operations of the models, each with the implementation that a platform's compiler runs fastest.

portable.py defines the operations in plain JAX. cpu.py and tpu.py implement some of them again for one compiler. The table at the
end of this file says which.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from mixer_jax.models.kernels import cpu, portable, tpu

# Inside `with for_platform("tpu"):` operations are traced in their TPU implementation, whatever platform the program is lowered
# for. Inside `with for_platform("portable"):` they are traced as portable.py defines them.
for_platform = jax.make_user_context(None)


def per_platform(definition: Callable, **implementations: Callable) -> Callable:
    """Select, among equivalent implementations, the one for the platform that the program is lowered for.

    If the model is traced where a mesh is in use, the platform is that of the mesh's devices. Without a mesh all implementations
    are traced, which takes longer, and one is selected when the program is lowered. An exported program contains all of them.

    Args:
      definition: the operation in plain JAX, for all platforms that have no implementation of their own.
      **implementations: the implementation for each platform, by the platform's name in JAX ("cpu", "tpu").

    Returns:
      A function of arrays and keyword options, with the arguments of `definition`.
    """

    @functools.wraps(definition)
    def operation(*arrays: Any, **options: Any) -> Any:
        device = jax.sharding.get_abstract_mesh().abstract_device
        platform = for_platform.value or (device and device.platform)
        if platform:
            return implementations.get(platform, definition)(*arrays, **options)
        bound = {name: functools.partial(implementation, **options) for name, implementation in implementations.items()}
        return jax.lax.platform_dependent(*arrays, default=functools.partial(definition, **options), **bound)

    return operation


layer_norm = per_platform(portable.layer_norm, cpu=cpu.layer_norm)
dense = per_platform(portable.dense, cpu=cpu.dense, tpu=tpu.dense)
token_dense = per_platform(portable.token_dense, cpu=cpu.token_dense)
norm_dense_gelu = per_platform(portable.norm_dense_gelu, cpu=cpu.norm_dense_gelu, tpu=tpu.norm_dense_gelu)
norm_token_dense_gelu = per_platform(portable.norm_token_dense_gelu, cpu=cpu.norm_token_dense_gelu, tpu=tpu.norm_token_dense_gelu)
store_gradient = per_platform(portable.store_gradient, tpu=tpu.store_gradient)
drop_zero_gradient = per_platform(portable.drop_zero_gradient, tpu=jax.lax.stop_gradient)
