"""A chat server on Django Channels with Redis, to run under uvicorn.

Groups as channels.readthedocs.io/en/stable/topics/channel_layers.html shows them, with the Redis layer that it names
for production; the README of channels_redis calls its other layer a beta, and hiredis is installed beside it, as that
of redis-py advises for speed. Its capacity is raised and messages do not expire while it is measured: the layer drops
silently what is too much or too late, and what is measured must arrive. Nor does it run out of connections to Redis, of
which redis-py allows 100 and every consumer at work takes one, nor of patience, as redis-py gives up reading after the
same 5 s for which channels_redis asks Redis to wait for a message.
"""

from __future__ import annotations

import os

# These are installed in an environment of their own.
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
        """Somebody said something in a channel of ours."""
        await self.send(event["text"])

    async def disconnect(self, code: int) -> None:
        for channel in self.joined:
            await self.channel_layer.group_discard(channel, self.channel_name)


application = ProtocolTypeRouter({"websocket": Client.as_asgi()})
