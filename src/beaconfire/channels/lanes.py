"""Changes of presence, and announcements of joins and leaves, in order for each channel.

Theory of operation. Calls of the engine that run at the same time may take effect in any order. So a channel has a
*lane* while it has changes that the engine has not confirmed: at most one batch of them is on its way, and what comes
meanwhile forms the next batch. The lane keeps what is wanted, not a queue of calls: of several changes of one client
only the last one counts, so a client that leaves and comes back is in presence in the end. Many joins of a channel at
the same time take a few calls.

A batch consists of the removals, then the additions, then the announcements that waited when the batch started. So a
leave is announced after the engine was asked to remove the entry. Announcements keep their order.

A failed change is repeated with a growing delay until it succeeds, a newer change of the client replaces it, or the
entry has expired anyway. The exception is an entry that a subscriber waits for: the subscriber gets the error, and the
lane removes the entry, because a failed call may have taken effect. Failed announcements are repeated a few times; then
they are dropped and reported as `WorkDropped`.

With an engine that never suspends there is no lane: each change is made in one step. Only a change that has failed is
kept in a lane until it is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from typing import Final, TypeVar

from beaconfire.base.backoff import Backoff
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timer, Timers
from beaconfire.engines.port import Broker, MemberChange, PresenceStore
from beaconfire.model.events import EventSink, LimitHit, WorkDropped
from beaconfire.model.publication import ClientInfo

T = TypeVar("T")

BATCH_MAX: Final = 250
"""Clients or announcements in one call of the engine."""

ANNOUNCE_TRIES_MAX: Final = 6
"""How often an announcement is tried: for some six seconds, if the engine fails at once."""

ANNOUNCEMENTS_MAX: Final = 100_000
"""Announcements of all channels that wait for a slow engine. Further ones are dropped: a client may subscribe and
unsubscribe ten thousand times per second, whether the engine answers or not."""


class PresenceChange:
    """The entry that a client should have, or None if it should have none."""

    __slots__ = ("expires_s", "info", "waiter")

    def __init__(self, info: ClientInfo | None, expires_s: float, waiter: asyncio.Future[None] | None = None) -> None:
        """At `expires_s`, a monotonic time, the change is not needed any more: the old entry has expired, or the
        upkeep of the channel has found that the new one is missing. `waiter` is set when the engine has answered."""
        self.info = info
        self.expires_s = expires_s
        self.waiter = waiter

    def finish(self, error: Exception | None = None) -> None:
        """Wakes up the subscriber that waits for the change."""
        if self.waiter is None or self.waiter.done():
            return
        if error is None:
            self.waiter.set_result(None)
        else:
            self.waiter.set_exception(error)


class Lane:
    """What the engine has not confirmed for one channel."""

    __slots__ = (
        "announce_failures",
        "announcements",
        "changes",
        "failed",
        "failures",
        "is_blocked",
        "is_running",
        "retry",
    )

    def __init__(self) -> None:
        self.changes: dict[str, PresenceChange] = {}
        """For the next batch, by client."""
        self.failed: dict[str, PresenceChange] = {}
        """Failed changes that wait for their repetition, by client."""
        self.announcements: list[MemberChange] = []
        self.is_running = False
        """A batch is on its way."""
        self.is_blocked = False
        """The first announcements have failed. They wait for their repetition, and so do those after them."""
        self.failures = 0
        """Batches in a row that have failed."""
        self.announce_failures = 0
        """Failures in a row of the first announcements."""
        self.retry: Timer | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.changes or self.failed or self.announcements)

    @property
    def is_ready(self) -> bool:
        """There is something to do now."""
        return bool(self.changes or (self.announcements and not self.is_blocked))

    def put(self, client: str, change: PresenceChange) -> None:
        """Replaces an older change of the client."""
        self.failed.pop(client, None)
        older = self.changes.get(client)
        if older is not None:
            if change.info is not None and change.waiter is None:
                change.waiter = older.waiter  # the newer entry is as good for the subscriber that waits
            else:
                older.finish()
        self.changes[client] = change

    def put_back(self, client: str, change: PresenceChange) -> None:
        """Keeps a failed change for its repetition, unless there is a newer one."""
        if client not in self.changes:
            self.failed[client] = change

    def unblock(self) -> None:
        """Everything that has failed may be repeated."""
        for client, change in self.failed.items():
            self.changes.setdefault(client, change)
        self.failed.clear()
        self.is_blocked = False


class Lanes:
    """The lanes of a node. No method raises, except `add`."""

    def __init__(
        self,
        broker: Broker,
        presence: PresenceStore,
        timers: Timers,
        background: BackgroundTasks,
        backoff: Backoff,
        events: EventSink,
        presence_ttl_s: float,
    ) -> None:
        """`presence_ttl_s` is how long an entry lives without a refresh."""
        self._broker = broker
        self._presence = presence
        self._timers = timers
        self._background = background
        self._backoff = backoff
        self._events = events
        self._presence_ttl_s = presence_ttl_s
        self._lanes: dict[str, Lane] = {}
        self._announcements = 0
        """Announcements in all lanes."""
        self._emptied: asyncio.Future[None] | None = None
        self._is_closed = False

    # Changes

    async def add(self, channel: str, info: ClientInfo) -> None:
        """Adds the entry of a client, and returns when the engine has it. Raises what the engine raises.

        Returns earlier if the client is removed meanwhile.
        """
        lane = self._lanes.get(channel)
        if not self._background.engine_suspends and (lane is None or not lane.is_running):
            if lane is not None:
                lane.failed.pop(info.client, None)
            await self._presence.add(channel, [info], self._presence_ttl_s)
            return
        waiter = asyncio.get_running_loop().create_future()
        self._put(channel, info.client, PresenceChange(info, self._expiry_s(), waiter))
        await waiter

    def replace(self, channel: str, info: ClientInfo) -> None:
        """Replaces the entry of a client that is present, or adds an entry that was lost."""
        self._put(channel, info.client, PresenceChange(info, self._expiry_s()))

    def remove(self, channel: str, client: str, leave: MemberChange | None = None) -> None:
        """Removes the entry of a client, and announces its leave unless `leave` is None."""
        if not self._background.engine_suspends and channel not in self._lanes:
            self._background.start_engine_work(self._remove_at_once(channel, client, leave))
            return
        lane = self._lane(channel)
        lane.put(client, PresenceChange(None, self._expiry_s()))
        if leave is not None:
            self._append(lane, leave)
        self._start(channel, lane)

    def announce(self, channel: str, change: MemberChange) -> None:
        """Announces a join or a leave, after all changes before it."""
        if not self._background.engine_suspends and channel not in self._lanes:
            self._background.start_engine_work(self._announce_at_once(channel, change))
            return
        lane = self._lane(channel)
        self._append(lane, change)
        if lane.is_empty and not lane.is_running:
            self._drop(channel)  # there was no room
        else:
            self._start(channel, lane)

    def __len__(self) -> int:
        """The number of channels with changes that the engine has not confirmed."""
        return len(self._lanes)

    async def wait_until_empty(self) -> None:
        """Returns when no change is left. Only one caller may wait at a time."""
        if self._lanes:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    def close(self) -> None:
        """No batch starts any more. What the engine has not confirmed is lost."""
        self._is_closed = True

    def _expiry_s(self) -> float:
        return self._timers.clock.now_s() + self._presence_ttl_s

    def _put(self, channel: str, client: str, change: PresenceChange) -> None:
        lane = self._lane(channel)
        lane.put(client, change)
        self._start(channel, lane)

    def _append(self, lane: Lane, change: MemberChange) -> None:
        if self._announcements >= ANNOUNCEMENTS_MAX:
            self._events.emit(LimitHit("announcements_waiting_max", change.info.client))
            return
        self._announcements += 1
        lane.announcements.append(change)

    def _lane(self, channel: str) -> Lane:
        lane = self._lanes.get(channel)
        if lane is None:
            lane = self._lanes[channel] = Lane()
        return lane

    # With an engine that never suspends

    async def _remove_at_once(self, channel: str, client: str, leave: MemberChange | None) -> None:
        try:
            await self._presence.remove(channel, [client])
        except Exception as error:  # noqa: BLE001 - reported; the removal is repeated
            self._background.report(error)
            lane = self._lane(channel)
            lane.failed[client] = PresenceChange(None, self._expiry_s())
            self._repeat_later(channel, lane)
        if leave is not None:
            await self._announce_at_once(channel, leave)

    async def _announce_at_once(self, channel: str, change: MemberChange) -> None:
        try:
            await self._broker.announce(channel, [change])
        except Exception as error:  # noqa: BLE001 - reported; the announcement is repeated
            self._background.report(error)
            lane = self._lane(channel)
            self._append(lane, change)
            lane.is_blocked = True
            lane.announce_failures = 1
            self._repeat_later(channel, lane)

    # Batches

    def _start(self, channel: str, lane: Lane) -> None:
        if not lane.is_running and lane.is_ready and not self._is_closed:
            lane.is_running = True
            self._background.start_engine_work(self._run(channel, lane))

    async def _run(self, channel: str, lane: Lane) -> None:
        """Makes batches until nothing is ready. What has failed is repeated later."""
        try:
            while lane.is_ready:
                changes, lane.changes = lane.changes, {}
                count = 0 if lane.is_blocked else len(lane.announcements)
                succeeded = await self._change_presence(channel, lane, changes)
                if count and not await self._announce(channel, lane, count):
                    succeeded = False
                lane.failures = 0 if succeeded else lane.failures + 1
        finally:
            lane.is_running = False
            if lane.is_empty:
                self._drop(channel)
            else:
                self._repeat_later(channel, lane)

    def _drop(self, channel: str) -> None:
        lane = self._lanes.pop(channel)
        if lane.retry is not None:
            lane.retry.cancel()
        if self._emptied is not None and not self._lanes and not self._emptied.done():
            self._emptied.set_result(None)

    def _repeat_later(self, channel: str, lane: Lane) -> None:
        if lane.retry is None and not self._is_closed:
            delay_s = self._backoff.delay_s(max(1, lane.failures))
            lane.retry = self._timers.after(delay_s, lambda: self._repeat(channel, lane))

    def _repeat(self, channel: str, lane: Lane) -> None:
        lane.retry = None
        lane.unblock()
        self._start(channel, lane)
        if lane.is_empty and not lane.is_running and self._lanes.get(channel) is lane:
            self._drop(channel)  # newer changes have replaced those that had failed

    async def _change_presence(self, channel: str, lane: Lane, changes: dict[str, PresenceChange]) -> bool:
        """Removes and adds entries. False if a call has failed."""
        succeeded = True
        removals = [client for client, change in changes.items() if change.info is None]
        for clients in in_batches(removals):
            error = await self._call(self._presence.remove(channel, clients))
            succeeded = self._finish(lane, changes, clients, error) and succeeded
        additions = [change.info for change in changes.values() if change.info is not None]
        for infos in in_batches(additions):
            error = await self._call(self._presence.add(channel, infos, self._presence_ttl_s))
            succeeded = self._finish(lane, changes, [info.client for info in infos], error) and succeeded
        return succeeded

    async def _call(self, call: Awaitable[None]) -> Exception | None:
        """The failure of the call, which is reported unless a failing engine is the cause."""
        try:
            await call
        except Exception as error:  # noqa: BLE001 - reported; the change is repeated
            self._background.report(error)
            return error
        return None

    def _finish(
        self, lane: Lane, changes: dict[str, PresenceChange], clients: Sequence[str], error: Exception | None
    ) -> bool:
        """Wakes up the subscribers that wait for these clients, or keeps the failed changes. True without an error."""
        for client in clients:
            change = changes[client]
            change.finish(error)
            if error is None:
                continue
            if change.waiter is not None:  # the subscriber is refused, and the call may have taken effect
                lane.put_back(client, PresenceChange(None, self._expiry_s()))
            elif self._timers.clock.now_s() < change.expires_s:
                lane.put_back(client, change)
        return error is None

    async def _announce(self, channel: str, lane: Lane, count: int) -> bool:
        """Makes the first `count` announcements. False if a call has failed."""
        while count:
            changes = lane.announcements[: min(count, BATCH_MAX)]
            if await self._call(self._broker.announce(channel, changes)) is not None:
                lane.announce_failures += 1
                if lane.announce_failures < ANNOUNCE_TRIES_MAX:
                    lane.is_blocked = True
                    return False
                self._events.emit(WorkDropped("announcements", len(changes), f"channel {channel!r}"))
            del lane.announcements[: len(changes)]
            self._announcements -= len(changes)
            lane.announce_failures = 0
            count -= len(changes)
        return True


def in_batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, at most `BATCH_MAX` at a time."""
    for start in range(0, len(items), BATCH_MAX):
        yield items[start : start + BATCH_MAX]
