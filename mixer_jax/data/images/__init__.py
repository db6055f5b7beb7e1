"""Decode, crop and augment one image."""
