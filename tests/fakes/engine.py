"""A broker and a presence store whose calls suspend and fail as a test decides. Their state is the memory engine's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Raw

from beaconfire.engines.port import (
    Broker,
    BrokerEvents,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PresenceStats,
    PresenceStore,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication


class CallControl(Protocol):
    """Decides how long a call to the engine takes and whether it fails."""

    async def before(self, method: str, subject: str) -> None:
        """Runs before the call takes effect. An exception becomes the failure of the call."""

    async def after(self, method: str) -> None:
        """Runs after the call has taken effect and before it returns."""


class ManualCalls:
    """Holds calls back, or makes them fail, at the request of a test. Any other call does not suspend.

    Calls are named by their method: `attach`, `history`, `presence_add`, and `verify` for tokens.
    """

    def __init__(self) -> None:
        self._held: dict[str, asyncio.Event] = {}
        self.when_changed: Callable[[], None] = lambda: None
        """Called when calls are held back or released."""
        self._failures: dict[str, Exception] = {}
        self.completed: list[str] = []
        """Method and subject of every call that was neither held back nor failed, in order: `attach news`. The subject
        of `announce` has the changes: `announce news join client1`."""

    def hold(self, method: str) -> Callable[[], None]:
        """Makes later calls wait. The returned function releases the calls that came before another `hold`."""
        held = self._held[method] = asyncio.Event()
        self.when_changed()

        def release() -> None:
            held.set()
            self.when_changed()

        return release

    @property
    def is_holding(self) -> bool:
        """Whether any call would wait."""
        return any(not held.is_set() for held in self._held.values())

    def release(self, method: str) -> None:
        """Releases the calls that wait, and does not hold later calls back."""
        self._held.pop(method).set()
        self.when_changed()

    def fail_next(self, method: str, error: Exception) -> None:
        """Makes the next call of this method raise `error`. It is not in `completed`."""
        self._failures[method] = error

    async def before(self, method: str, subject: str) -> None:
        held = self._held.get(method)
        if held is not None:
            await held.wait()
        failure = self._failures.pop(method, None)
        if failure is not None:
            raise failure
        self.completed.append(f"{method} {subject}")

    async def after(self, method: str) -> None:
        pass


class ControlledBroker:
    """A broker whose calls a `CallControl` suspends and fails. A call takes effect in `inner` between the two hooks."""

    def __init__(self, calls: CallControl, inner: Broker) -> None:
        self._calls = calls
        self._inner = inner

    async def start(self, events: BrokerEvents) -> None:
        await self._inner.start(events)

    async def stop(self) -> None:
        await self._inner.stop()

    async def ping(self) -> None:
        await self._calls.before("ping", "")
        await self._inner.ping()

    async def attach(self, channels: Sequence[str]) -> None:
        assert not isinstance(channels, str), "a str is a sequence of channels with one letter"
        await self._calls.before("attach", " ".join(channels))
        await self._inner.attach(channels)
        await self._calls.after("attach")

    async def detach(self, channels: Sequence[str]) -> None:
        await self._calls.before("detach", " ".join(channels))
        await self._inner.detach(channels)
        await self._calls.after("detach")

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        await self._calls.before("publish", channel)
        outcome = await self._inner.publish(channel, data, options, info, tags)
        await self._calls.after("publish")
        return outcome

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        described = (f"{'join' if change.joined else 'leave'} {change.info.client}" for change in changes)
        await self._calls.before("announce", f"{channel} {' '.join(described)}")
        await self._inner.announce(channel, changes)

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        await self._calls.before("history", channel)
        page = await self._inner.history(channel, options, limit, since, reverse)
        await self._calls.after("history")
        return page

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        await self._calls.before("positions", " ".join(channels))
        positions = await self._inner.positions(channels)
        await self._calls.after("positions")
        return positions

    async def remove_history(self, channel: str) -> None:
        await self._inner.remove_history(channel)


class ControlledPresence:
    """A presence store whose updates a `CallControl` suspends and fails."""

    def __init__(self, calls: CallControl, inner: PresenceStore) -> None:
        self._calls = calls
        self._inner = inner

    async def add(self, channel: str, members: Sequence[ClientInfo], ttl_s: float) -> None:
        await self._calls.before("presence_add", " ".join((channel, *(info.client for info in members))))
        await self._inner.add(channel, members, ttl_s)

    async def remove(self, channel: str, clients: Sequence[str]) -> None:
        await self._calls.before("presence_remove", " ".join((channel, *clients)))
        await self._inner.remove(channel, clients)

    async def refresh(self, channel: str, clients: Sequence[str], ttl_s: float) -> Sequence[str]:
        await self._calls.before("presence_refresh", " ".join((channel, *clients)))
        return await self._inner.refresh(channel, clients, ttl_s)

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        return await self._inner.members(channel)

    async def stats(self, channel: str) -> PresenceStats:
        return await self._inner.stats(channel)


class NoCallbacks:
    """Implements `BrokerEvents` and `ControlHandler` for tests without announcements: drops everything."""

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        pass

    def on_join(self, channel: str, info: ClientInfo) -> None:
        pass

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        pass

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        pass

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        pass

    def on_control(self, message: bytes) -> None:
        pass

    def on_survey(self, request: bytes) -> bytes:
        return b""
