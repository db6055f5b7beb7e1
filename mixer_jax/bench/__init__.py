"""Measures speed and memory on this machine, each beside a reference in the same run: `python -m mixer_jax bench`."""
