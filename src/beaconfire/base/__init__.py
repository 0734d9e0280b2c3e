"""Errors, units, clock, timers and tasks. Nothing in this folder depends on messaging."""
