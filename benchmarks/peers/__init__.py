"""Other projects that we compare with, each in a process of its own."""
