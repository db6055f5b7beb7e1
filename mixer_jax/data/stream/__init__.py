"""Order, workers and batches."""
