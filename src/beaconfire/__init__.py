"""Beaconfire: a real-time message push server."""

__version__ = "0.1.0"
