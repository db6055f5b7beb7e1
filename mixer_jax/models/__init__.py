"""Pixels in, logits and named features out. Models know nothing of meshes, losses or data."""
