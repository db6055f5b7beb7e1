"""The operations of models/ as a compiler runs them fastest, and the table that chooses."""
