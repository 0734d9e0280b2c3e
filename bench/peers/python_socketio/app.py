"""A chat server on python-socketio, served by uvicorn.

It uses the asyncio server with the ASGI application, as the first example of the documentation
(python-socketio.readthedocs.io/en/stable/server.html). Its log is off by default. Its pings, which only a client of its
protocol answers, are sent once an hour.
"""

from __future__ import annotations

import socketio  # type: ignore[import-not-found]  # installed in its own environment

HOUR_S = 3600

server = socketio.AsyncServer(
    async_mode="asgi", transports=["websocket"], http_compression=False, ping_interval=HOUR_S, ping_timeout=HOUR_S
)


async def join(sid: str, channel: str) -> None:
    """The return sends the acknowledgement."""
    await server.enter_room(sid, channel)


async def say(sid: str, channel: str, data: str) -> None:
    """Sends `data` to all clients in the channel. The return sends the acknowledgement."""
    await server.emit("message", data, room=channel)


server.on("join", join)
server.on("to", say)
application = socketio.ASGIApp(server)
