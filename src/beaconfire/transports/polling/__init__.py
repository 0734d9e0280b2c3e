"""Long polling, over any ASGI server: each request is a session of its own."""

from beaconfire.transports.polling.endpoints import Poll, PollCommands

__all__ = ["Poll", "PollCommands"]
