"""A chat server on python-socketio, to run under uvicorn.

The asyncio server with the ASGI application and the server that its documentation shows first
(python-socketio.readthedocs.io/en/stable/server.html); its log is off by default. Its own pings, which only a client
of its protocol answers, come once an hour.
"""

from __future__ import annotations

import socketio  # type: ignore[import-not-found]  # installed in an environment of its own

HOUR_S = 3600

server = socketio.AsyncServer(
    async_mode="asgi", transports=["websocket"], http_compression=False, ping_interval=HOUR_S, ping_timeout=HOUR_S
)


async def join(sid: str, channel: str) -> None:
    """Returning acknowledges."""
    await server.enter_room(sid, channel)


async def say(sid: str, channel: str, data: str) -> None:
    """`data` to all in the channel. Returning acknowledges."""
    await server.emit("message", data, room=channel)


server.on("join", join)
server.on("to", say)
application = socketio.ASGIApp(server)
