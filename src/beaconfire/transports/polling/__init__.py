"""Long polling over any ASGI server: each request has its own session."""

from beaconfire.transports.polling.endpoints import Poll, PollCommands

__all__ = ["Poll", "PollCommands"]
