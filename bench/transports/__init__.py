"""Compares transports: the cost of a message for network and server, and its latency.

    python -m bench.transports

measures on this machine, takes a minute or two, and writes `docs/benchmarks/transports.md`.
"""
