"""A trained model as one file for inference, which needs nothing of this package."""
