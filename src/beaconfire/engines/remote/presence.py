"""The presence store of a worker process."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.engines.port import PresenceStats
from beaconfire.engines.remote.link import Link
from beaconfire.engines.wire.messages import (
    AddMembers,
    CountMembers,
    Counts,
    Done,
    Members,
    Names,
    ReadMembers,
    RefreshMembers,
    RemoveMembers,
)
from beaconfire.engines.wire.values import from_info, to_info
from beaconfire.model.publication import ClientInfo


class RemotePresenceStore:
    """Implements `PresenceStore`. The entries of a worker that has ended expire like all others."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def add(self, channel: str, members: Sequence[ClientInfo], ttl_s: float) -> None:
        await self._link.send(AddMembers(0, channel, [to_info(info) for info in members], ttl_s), Done)

    async def remove(self, channel: str, clients: Sequence[str]) -> None:
        assert not isinstance(clients, str), "a str is a sequence of clients with one letter"
        await self._link.send(RemoveMembers(0, channel, list(clients)), Done)

    async def refresh(self, channel: str, clients: Sequence[str], ttl_s: float) -> Sequence[str]:
        assert not isinstance(clients, str), "a str is a sequence of clients with one letter"
        return (await self._link.send(RefreshMembers(0, channel, list(clients), ttl_s), Names)).names

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        found = (await self._link.send(ReadMembers(0, channel), Members)).members
        return {info.client: from_info(info) for info in found}

    async def stats(self, channel: str) -> PresenceStats:
        counts = await self._link.send(CountMembers(0, channel), Counts)
        return PresenceStats(counts.num_clients, counts.num_users)
