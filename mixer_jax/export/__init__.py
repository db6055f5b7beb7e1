"""Exports a trained model as one file for inference, which does not need this package."""
