"""Compiles a run's program for a TPU pod without the pod: `plan`; and fits its recipe to fewer devices: `recipe-scale`."""
