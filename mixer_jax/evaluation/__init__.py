"""Evaluators: functions from parameters to figures. They do not depend on training, whose loop receives them as functions."""
