"""Record number in, global batch of uint8 images and labels out."""
