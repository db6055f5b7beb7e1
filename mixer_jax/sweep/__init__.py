"""Runs of one config with several values of some options: which runs, how far they are, which values are the best."""
