"""How the processes of one run find each other, agree on what they do, and end together."""
