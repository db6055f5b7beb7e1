"""Figures that the README or a config promises, each against something else in the same run: `python -m mixer_jax bench ...`."""
