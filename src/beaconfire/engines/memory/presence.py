"""The presence store of the memory engine."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from beaconfire.base.clock import Clock
from beaconfire.engines.memory.dicts import shrink_dict
from beaconfire.engines.memory.expiry import ExpiryBuckets
from beaconfire.engines.port import PresenceStats
from beaconfire.model.publication import ClientInfo

SWEEP_BUDGET = 1000
"""How many entries one `sweep` examines at most: a few milliseconds, at one or two microseconds each."""

_SWEEP_BUDGET_PER_CHANGE = 2
"""How many entries `add` and `refresh` examine for each client. They create at most one entry for each, so expired
entries cannot grow faster than they are removed."""

_NO_INFO = ClientInfo("", "")


class MemoryPresenceStatistics(Struct, frozen=True):
    """A snapshot. Expired entries count until they are swept."""

    channels: int
    entries: int


class _Entry:
    """A client in a channel. A refresh changes only `expires_s`; the entry moves when its bucket is due."""

    __slots__ = ("channel", "expires_s", "info")

    def __init__(self, channel: str, info: ClientInfo, expires_s: float) -> None:
        self.channel = channel
        self.info = info
        self.expires_s = expires_s


class MemoryPresenceStore:
    """Implements `PresenceStore`. Each call is one atomic step on the thread of the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._channels: dict[str, dict[str, _Entry]] = {}
        self._expiry: ExpiryBuckets[_Entry] = ExpiryBuckets()
        self._entries = 0

    async def add(self, channel: str, members: Sequence[ClientInfo], ttl_s: float) -> None:
        now_s = self._clock.now_s()
        self._sweep(now_s, _SWEEP_BUDGET_PER_CHANGE * len(members))
        for info in members:
            self._set_entry(channel, info, now_s + ttl_s)

    async def remove(self, channel: str, clients: Sequence[str]) -> None:
        for client in clients:
            entry = self._channels.get(channel, {}).get(client)
            if entry is not None:
                self._remove_entry(entry)

    async def refresh(self, channel: str, clients: Sequence[str], ttl_s: float) -> Sequence[str]:
        now_s = self._clock.now_s()
        self._sweep(now_s, _SWEEP_BUDGET_PER_CHANGE * len(clients))
        entries = self._channels.get(channel, {})
        missing = []
        for client in clients:
            entry = entries.get(client)
            if entry is not None and entry.expires_s > now_s:
                self._set_entry(channel, entry.info, now_s + ttl_s)
            else:
                missing.append(client)
        return missing

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        return {info.client: info for info in self._alive(channel)}

    async def stats(self, channel: str) -> PresenceStats:
        alive = self._alive(channel)
        return PresenceStats(num_clients=len(alive), num_users=len({info.user for info in alive}))

    def sweep(self) -> bool:
        """Frees the memory of expired entries within a budget. True if more remain. See `MemoryEngine.sweep`."""
        now_s = self._clock.now_s()
        self._sweep(now_s, SWEEP_BUDGET)
        return self._expiry.is_due(now_s)

    def statistics(self) -> MemoryPresenceStatistics:
        return MemoryPresenceStatistics(channels=len(self._channels), entries=self._entries)

    def _set_entry(self, channel: str, info: ClientInfo, expires_s: float) -> None:
        entries = self._channels.setdefault(channel, {})
        entry = entries.get(info.client)
        if entry is None or expires_s < entry.expires_s:
            # An entry with an earlier expiry than before would be due too late in its bucket, so it is replaced.
            if entry is None:
                self._entries += 1
            entry = entries[info.client] = _Entry(channel, info, expires_s)
            self._expiry.add(entry, expires_s)
        else:
            entry.info = info
            entry.expires_s = expires_s

    def _alive(self, channel: str) -> list[ClientInfo]:
        now_s = self._clock.now_s()
        return [entry.info for entry in self._channels.get(channel, {}).values() if entry.expires_s > now_s]

    def _sweep(self, now_s: float, budget: int) -> None:
        while budget > 0 and (entry := self._expiry.take_due(now_s)) is not None:
            budget -= 1
            if self._channels.get(entry.channel, {}).get(entry.info.client) is not entry:
                continue  # The entry was removed or replaced before it expired.
            if entry.expires_s > now_s:
                self._expiry.add(entry, entry.expires_s)
            else:
                self._remove_entry(entry)

    def _remove_entry(self, entry: _Entry) -> None:
        members = self._channels[entry.channel]
        del members[entry.info.client]
        self._entries -= 1
        if members:
            shrink_dict(members)
        else:
            del self._channels[entry.channel]
            shrink_dict(self._channels)
        entry.info = _NO_INFO  # The bucket keeps the entry until it is due, but its info is not needed any more.
