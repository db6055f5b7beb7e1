"""MLP-Mixer (arXiv 2105.01601) in JAX: pre-training on TPU pods, fine-tuning and evaluation. README.md has the room map.

Importing this package or mixer_jax.data imports no jax, because the worker processes that decode images do it.
"""

__version__ = "0.1.0"
