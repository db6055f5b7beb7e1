"""The tables and figures of arXiv 2105.01601, version 4, typed as the paper prints them. This folder has data only."""
