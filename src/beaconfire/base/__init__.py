"""Errors, units, clock, timers and tasks: knows nothing of messaging."""
