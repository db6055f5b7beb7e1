"""MLP-Mixer (arXiv 2105.01601) in JAX: pre-training on TPU pods, fine-tuning and evaluation. README.md has the room map."""

__version__ = "0.1.0"
