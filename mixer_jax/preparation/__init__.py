"""Turns downloads into shards: `python -m mixer_jax prepare`. data/sources/shards.py defines and reads the shards."""
