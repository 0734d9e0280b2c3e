"""What operators should know about a server: settings that lose data or connections. Asked after each connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from beaconfire.base.units import Size
from beaconfire.engines.redis.connection import Connection, Reply, ServerError
from beaconfire.engines.redis.handshake import Server, Unsuitable

OLDEST: Final[Mapping[str, tuple[int, ...]]] = {"redis": (6, 2), "valkey": (7, 2)}

WAITAOF_VERSION: Final = (7, 2)
"""The first version of Redis that tells when its append-only file has what was written."""

OUTPUT_BYTES_MIN: Final = 8 * 1024 * 1024
"""The smallest output buffer for announcements that leaves a node time for its other work."""


def check_version(server: Server) -> None:
    """Raises Unsuitable if the server is too old."""
    oldest = OLDEST.get(server.name, (6, 2))
    if server.version < oldest:
        raise Unsuitable(f"{server} is too old: version {'.'.join(map(str, oldest))} or later is needed")


class DiskFacts(Struct, frozen=True):
    """Whether a server offers the durability `disk`. `problem` is empty, or says why not, with the remedy. `waits` is
    false if everything that the server answers is on disk."""

    problem: str = ""
    waits: bool = False


async def find_disk_facts(connection: Connection, server: Server) -> DiskFacts:
    """Asks the server."""
    try:
        if server.name == "valkey" or server.version >= WAITAOF_VERSION:
            await connection.call("WAITAOF", 1, 0, 1)
            return DiskFacts(waits=True)
        said = await connection.call("CONFIG", "GET", "append*")
    except ServerError as error:
        return DiskFacts(f"the server says: {error}")
    if said.get(b"appendonly") == b"yes" and said.get(b"appendfsync") == b"always":
        return DiskFacts()
    return DiskFacts(
        f"{server} needs `appendonly yes` and `appendfsync always`; from version 7.2 on, `appendonly yes` suffices"
    )


async def find_advice(connection: Connection) -> str:
    """Sentences for the log, or an empty text. A server that does not tell its settings gets no advice."""
    try:
        settings = await connection.call("CONFIG", "GET", "maxmemory*")
        buffers = await connection.call("CONFIG", "GET", "client-output-buffer-limit")
    except ServerError:
        return ""  # managed servers and users with few rights
    return " ".join((*_memory_advice(settings), *_buffer_advice(buffers)))


def _memory_advice(settings: Mapping[bytes, bytes]) -> Iterator[str]:
    policy = settings.get(b"maxmemory-policy", b"noeviction").decode()
    if int(settings.get(b"maxmemory", b"0")) and policy != "noeviction":
        yield (
            f"maxmemory-policy is {policy}: when the memory is full, the server may remove history and presence "
            "without a trace. Set maxmemory-policy noeviction."
        )


def _buffer_advice(buffers: Reply) -> Iterator[str]:
    words = buffers.get(b"client-output-buffer-limit", b"").decode().split()
    if "pubsub" not in words:
        return
    hard, soft = (int(word) for word in words[words.index("pubsub") + 1 :][:2])
    smallest = min((limit for limit in (hard, soft) if limit), default=OUTPUT_BYTES_MIN)
    if smallest < OUTPUT_BYTES_MIN:
        yield (
            f"client-output-buffer-limit for pubsub is {Size(smallest)}: a node that is busy for a moment is cut off. "
            f"Set at least {Size(OUTPUT_BYTES_MIN)}."
        )
