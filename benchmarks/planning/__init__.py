"""Tables of the planner's estimates."""
