"""The presence store: the entries of a channel are leases at its master."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import msgpack

from beaconfire.engines.port import PresenceStats
from beaconfire.engines.redis.connection import Argument, Command, Reply
from beaconfire.engines.redis.keys import Keys
from beaconfire.engines.redis.scripts import PRESENCE
from beaconfire.engines.redis.servers import Servers
from beaconfire.engines.wire.messages import Info
from beaconfire.engines.wire.values import from_info, to_info
from beaconfire.model.publication import ClientInfo

_decode_info = msgpack.Decoder(Info).decode


class RedisPresenceStore:
    """Implements `PresenceStore`. Each call is one script."""

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self._servers = servers
        self._keys = keys

    async def add(self, channel: str, members: Sequence[ClientInfo], ttl_s: float) -> None:
        if not members:
            return
        arguments: list[Argument] = ["add", int(ttl_s * 1000)]
        for info in members:
            arguments += (info.client, info.user, msgpack.encode(to_info(info)))
        await self._call(channel, arguments)

    async def remove(self, channel: str, clients: Sequence[str]) -> None:
        assert not isinstance(clients, str), "a str is a sequence of clients with one letter"
        if clients:
            await self._call(channel, ["remove", *clients])

    async def refresh(self, channel: str, clients: Sequence[str], ttl_s: float) -> Sequence[str]:
        assert not isinstance(clients, str), "a str is a sequence of clients with one letter"
        if not clients:
            return []
        missing = await self._call(channel, ["refresh", int(ttl_s * 1000), *clients])
        return [client.decode() for client in missing]

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        found = await self._call(channel, ["members"])
        infos = (from_info(_decode_info(info)) for info in found[1::2])
        return {info.client: info for info in infos}

    async def stats(self, channel: str) -> PresenceStats:
        clients, users = await self._call(channel, ["stats"])
        return PresenceStats(clients, users)

    async def _call(self, channel: str, arguments: Sequence[Argument]) -> Reply:
        """All operations may be repeated without harm."""
        keys = self._keys.presence(channel)
        command: Command = ("EVALSHA", PRESENCE.sha, "3", keys.entries, keys.expiry, keys.users, *arguments)
        return await self._servers.link(keys.entries).send(command, lambda link: command)
