"""Where labeled images come from."""
