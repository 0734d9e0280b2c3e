"""Long polling, over any ASGI server: each request is a session of its own."""

from beaconfire.transports.polling.endpoints import Poll, Speaking

__all__ = ["Poll", "Speaking"]
