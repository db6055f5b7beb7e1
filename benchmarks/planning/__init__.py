"""Tables of the planner's estimates: `python -m benchmarks.planning`."""
