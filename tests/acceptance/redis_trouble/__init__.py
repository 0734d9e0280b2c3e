"""Servers on the engine `redis` whose Redis ends, hangs, forgets or lies."""
