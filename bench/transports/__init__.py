"""The ways to listen compared: what a message costs the network and the server over each, and how late it comes.

    python -m bench.transports

measures on this machine, in a minute or two, and writes `docs/benchmarks/transports.md`.
"""
