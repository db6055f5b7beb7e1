"""Save and load training state and weights, and convert weights between formats."""
