"""Models: they take pixels and return logits and named features. They know nothing of losses, data or command-line flags."""
