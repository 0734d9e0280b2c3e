"""The load side of the benchmark: compiled C that is cheap enough not to be the bottleneck, and its Python wrapper."""

from bench.load.client import MARK, Connection, HttpLoad, Latency, Load, LoadError, Outcome

__all__ = ["MARK", "Connection", "HttpLoad", "Latency", "Load", "LoadError", "Outcome"]
