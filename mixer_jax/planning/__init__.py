"""A pod's program, compiled without the pod: `python -m mixer_jax plan`."""
