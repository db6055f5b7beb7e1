"""State and weights, to and from disk."""
