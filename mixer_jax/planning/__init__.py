"""Compiles a run's program for a TPU pod without the pod: `python -m mixer_jax plan`."""
