"""The memory engine's presence store."""

from __future__ import annotations

from msgspec import Struct

from beaconfire.base.clock import Clock
from beaconfire.engines.memory.agenda import Agenda
from beaconfire.engines.memory.tables import shrink
from beaconfire.engines.port import PresenceStats
from beaconfire.model.publication import ClientInfo

SWEEP_BUDGET = 1000
"""Entries that one `sweep` looks at, at most: a few milliseconds, at one or two microseconds apiece."""

_ADD_SWEEP_BUDGET = 2
"""What an add looks at in passing. It adds at most one, so garbage never outruns those who come."""

_NOBODY = ClientInfo("", "")


class MemoryPresenceStatistics(Struct, frozen=True):
    """A snapshot. Expired entries count until they are swept."""

    channels: int
    entries: int


class _Entry:
    """A client's presence in a channel. Refreshing moves `expires_s`; its place in the agenda follows when due."""

    __slots__ = ("channel", "expires_s", "info")

    def __init__(self, channel: str, info: ClientInfo, expires_s: float) -> None:
        self.channel = channel
        self.info = info
        self.expires_s = expires_s


class MemoryPresenceStore:
    """Implements `PresenceStore`. Each call is one atomic step on the loop's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._channels: dict[str, dict[str, _Entry]] = {}
        self._expiring: Agenda[_Entry] = Agenda()
        self._entries = 0

    async def add(self, channel: str, info: ClientInfo, ttl_s: float) -> None:
        now_s = self._clock.now_s()
        self._sweep(now_s, _ADD_SWEEP_BUDGET)
        members = self._channels.setdefault(channel, {})
        expires_s = now_s + ttl_s
        entry = members.get(info.client)
        if entry is None or expires_s < entry.expires_s:
            # One that shall live shorter than promised would come out of the agenda too late, so it is made anew.
            if entry is None:
                self._entries += 1
            entry = members[info.client] = _Entry(channel, info, expires_s)
            self._expiring.add(entry, expires_s)
        else:
            entry.info = info
            entry.expires_s = expires_s

    async def remove(self, channel: str, client: str) -> None:
        entry = self._channels.get(channel, {}).get(client)
        if entry is not None:
            self._forget(entry)

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        return {info.client: info for info in self._alive(channel)}

    async def stats(self, channel: str) -> PresenceStats:
        alive = self._alive(channel)
        return PresenceStats(num_clients=len(alive), num_users=len({info.user for info in alive}))

    def sweep(self) -> bool:
        """Gives back the memory of what is expired, within a budget. To be called every second or so.

        True if there is more: then again after letting others run.
        """
        now_s = self._clock.now_s()
        self._sweep(now_s, SWEEP_BUDGET)
        return self._expiring.is_due(now_s)

    def statistics(self) -> MemoryPresenceStatistics:
        return MemoryPresenceStatistics(channels=len(self._channels), entries=self._entries)

    def _alive(self, channel: str) -> list[ClientInfo]:
        now_s = self._clock.now_s()
        return [entry.info for entry in self._channels.get(channel, {}).values() if entry.expires_s > now_s]

    def _sweep(self, now_s: float, budget: int) -> None:
        while budget > 0 and (entry := self._expiring.take_due(now_s)) is not None:
            budget -= 1
            if self._channels.get(entry.channel, {}).get(entry.info.client) is not entry:
                continue  # Removed or replaced before its time.
            if entry.expires_s > now_s:
                self._expiring.add(entry, entry.expires_s)
            else:
                self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        members = self._channels[entry.channel]
        del members[entry.info.client]
        self._entries -= 1
        if members:
            shrink(members)
        else:
            del self._channels[entry.channel]
            shrink(self._channels)
        entry.info = _NOBODY  # The agenda holds the entry until it is due; what it said is not needed so long.
