"""A chat server on the Python library websockets: python server.py PORT

It follows websockets.readthedocs.io/en/stable/topics/performance.html and faq/misc.html: uvloop, broadcast(), no
compression, and no keepalive.
"""

from __future__ import annotations

import logging
import sys
from collections import defaultdict

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def handle(connection: ServerConnection) -> None:
    """`join <channel>` is answered with `joined`. `to <channel> <data>` sends data to the channel, then `+` to us."""
    joined: set[str] = set()
    try:
        async for message in connection:
            word, channel, *data = str(message).split(" ", 2)
            if word == "join":
                rooms[channel].add(connection)
                joined.add(channel)
                await connection.send("joined")
            else:
                broadcast(rooms[channel], data[0])
                await connection.send("+")
    except ConnectionClosed:
        pass  # the connection was lost or closed
    finally:
        for channel in joined:
            rooms[channel].discard(connection)
            if not rooms[channel]:
                del rooms[channel]


async def main(port: int) -> None:
    """Serves until the process is killed."""
    logging.basicConfig(level=logging.ERROR)
    async with serve(handle, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
