"""Downloads in, shards out: `python -m mixer_jax prepare`. What shards are, and how they are read: data/sources/shards.py."""
