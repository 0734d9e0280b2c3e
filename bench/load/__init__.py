"""The load side of the benchmark: programs in C, fast enough not to be the bottleneck, and their Python wrapper."""

from bench.load.client import MARK, Connection, HttpLoad, Latency, Load, LoadError, Outcome

__all__ = ["MARK", "Connection", "HttpLoad", "Latency", "Load", "LoadError", "Outcome"]
