"""A chat server on Django Channels with Redis, served by uvicorn.

It uses groups as in channels.readthedocs.io/en/stable/topics/channel_layers.html, with the Redis layer that this page
names for production (the README of channels_redis calls its other layer a beta). hiredis is installed, too, as the
README of redis-py recommends for speed. The capacity is higher than the default and messages do not expire during a
measurement, because the layer silently drops messages that are too many or too old, and a measurement needs all of
them. Two limits of redis-py are raised: the number of connections (100 by default; every active consumer needs one),
and the socket timeout (5 s by default, as long as channels_redis lets Redis wait for a message).
"""

from __future__ import annotations

import os

# These packages are installed in their own environment.
from channels.generic.websocket import AsyncWebsocketConsumer  # type: ignore[import-untyped]
from channels.routing import ProtocolTypeRouter  # type: ignore[import-untyped]
from django.conf import settings  # type: ignore[import-not-found]

settings.configure(
    DEBUG=False,
    SECRET_KEY="there are no cookies to sign",
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {
                "hosts": [{"address": os.environ["REDIS_URL"], "max_connections": 5000, "socket_timeout": 60}],
                "capacity": 10_000_000,
                "expiry": 3600,
            },
        }
    },
)


class Client(AsyncWebsocketConsumer):  # type: ignore[misc]  # the library has no types
    """One connection."""

    async def connect(self) -> None:
        self.joined: list[str] = []
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """`join <channel>` or `to <channel> <data>`."""
        word, channel, *data = (text_data or "").split(" ", 2)
        if word == "join":
            await self.channel_layer.group_add(channel, self.channel_name)
            self.joined.append(channel)
            await self.send("joined")
        else:
            await self.channel_layer.group_send(channel, {"type": "said", "text": data[0]})
            await self.send("+")

    async def said(self, event: dict[str, str]) -> None:
        """A message was published in a channel of this client."""
        await self.send(event["text"])

    async def disconnect(self, code: int) -> None:
        for channel in self.joined:
            await self.channel_layer.group_discard(channel, self.channel_name)


application = ProtocolTypeRouter({"websocket": Client.as_asgi()})
