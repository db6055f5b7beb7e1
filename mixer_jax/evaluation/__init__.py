"""Parameters in, numbers out. Evaluators know nothing of training; the loop receives them as functions."""
