"""Other projects, each in a process of its own."""
