"""Long polling over any ASGI server: each request has its own session."""

from beaconfire.transports.polling.endpoints import Poll, PollCommands
from beaconfire.transports.polling.wire import PollWire

__all__ = ["Poll", "PollCommands", "PollWire"]
