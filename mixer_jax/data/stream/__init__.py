"""The stream of batches: the order of the records, the workers that load them, and the memory of the batches."""
