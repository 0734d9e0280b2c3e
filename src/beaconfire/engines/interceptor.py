"""Passes every call of an engine through one function: for deadlines (`engines.guard`) and for tests (`testing`)."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar, get_args

from msgspec import Raw

from beaconfire.engines.migration import Migration, MigrationStatus
from beaconfire.engines.port import (
    Broker,
    BrokerEvents,
    ControlBus,
    ControlHandler,
    Engine,
    EngineState,
    EngineStatistics,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PresenceStats,
    PresenceStore,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

T = TypeVar("T")

EngineCall: TypeAlias = Literal[
    "start",
    "stop",
    "ping",
    "attach",
    "detach",
    "publish",
    "announce",
    "history",
    "positions",
    "remove_history",
    "presence_add",
    "presence_remove",
    "presence_refresh",
    "presence_members",
    "presence_stats",
    "control_start",
    "control_stop",
    "control_broadcast",
    "control_send",
    "control_survey",
    "control_nodes",
    "migration_status",
    "migration_set_read_percent",
    "migration_verify",
]
"""The name of a call in metrics, errors and tests: the method of the broker, or the part and its method."""

ENGINE_CALLS: Final[tuple[EngineCall, ...]] = get_args(EngineCall)


class CallInterceptor(Protocol):
    """Runs the calls of an engine."""

    async def call(
        self, name: EngineCall, running: Coroutine[Any, Any, T], *arguments: object, waits_s: float = 0.0
    ) -> T:
        """Awaits `running`, which is the call of the inner engine, or closes it, and returns or raises its outcome.

        `arguments` are the channels, clients, changes or nodes that the call is about, as they were given. `waits_s` is
        how long the arguments let the call wait for others.
        """


class InterceptedBroker:
    """A `Broker` whose calls run through an interceptor. Announcements go directly from `inner` to the node."""

    def __init__(
        self, inner: Broker, interceptor: CallInterceptor, start_wait_s: float = 0.0, stop_wait_s: float = 0.0
    ) -> None:
        """`start_wait_s` and `stop_wait_s` are those of `Engine`."""
        self._inner = inner
        self._call = interceptor.call
        self._start_wait_s = start_wait_s
        self._stop_wait_s = stop_wait_s

    # The methods return the coroutine of the interceptor, which saves a coroutine for each call.

    def start(self, events: BrokerEvents) -> Coroutine[Any, Any, None]:
        return self._call("start", self._inner.start(events), waits_s=self._start_wait_s)

    def stop(self) -> Coroutine[Any, Any, None]:
        return self._call("stop", self._inner.stop(), waits_s=self._stop_wait_s)

    def ping(self) -> Coroutine[Any, Any, None]:
        return self._call("ping", self._inner.ping())

    def attach(self, channels: Sequence[str]) -> Coroutine[Any, Any, None]:
        return self._call("attach", self._inner.attach(channels), channels)

    def detach(self, channels: Sequence[str]) -> Coroutine[Any, Any, None]:
        return self._call("detach", self._inner.detach(channels), channels)

    def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, PublishOutcome]:
        return self._call("publish", self._inner.publish(channel, data, options, info, tags), channel)

    def announce(self, channel: str, changes: Sequence[MemberChange]) -> Coroutine[Any, Any, None]:
        return self._call("announce", self._inner.announce(channel, changes), channel, changes)

    def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> Coroutine[Any, Any, HistoryPage]:
        return self._call("history", self._inner.history(channel, options, limit, since, reverse), channel)

    def positions(self, channels: Mapping[str, HistoryOptions]) -> Coroutine[Any, Any, dict[str, StreamPosition]]:
        return self._call("positions", self._inner.positions(channels), channels)

    def remove_history(self, channel: str) -> Coroutine[Any, Any, None]:
        return self._call("remove_history", self._inner.remove_history(channel), channel)


class InterceptedPresence:
    """A `PresenceStore` whose calls run through an interceptor."""

    def __init__(self, inner: PresenceStore, interceptor: CallInterceptor) -> None:
        self._inner = inner
        self._call = interceptor.call

    def add(self, channel: str, members: Sequence[ClientInfo], ttl_s: float) -> Coroutine[Any, Any, None]:
        return self._call("presence_add", self._inner.add(channel, members, ttl_s), channel, members)

    def remove(self, channel: str, clients: Sequence[str]) -> Coroutine[Any, Any, None]:
        return self._call("presence_remove", self._inner.remove(channel, clients), channel, clients)

    def refresh(self, channel: str, clients: Sequence[str], ttl_s: float) -> Coroutine[Any, Any, Sequence[str]]:
        return self._call("presence_refresh", self._inner.refresh(channel, clients, ttl_s), channel, clients)

    def members(self, channel: str) -> Coroutine[Any, Any, dict[str, ClientInfo]]:
        return self._call("presence_members", self._inner.members(channel), channel)

    def stats(self, channel: str) -> Coroutine[Any, Any, PresenceStats]:
        return self._call("presence_stats", self._inner.stats(channel), channel)


class InterceptedControlBus:
    """A `ControlBus` whose calls run through an interceptor. Messages go directly from `inner` to the node."""

    def __init__(self, inner: ControlBus, interceptor: CallInterceptor) -> None:
        self._inner = inner
        self._call = interceptor.call

    def start(self, uid: str, handler: ControlHandler) -> Coroutine[Any, Any, None]:
        return self._call("control_start", self._inner.start(uid, handler))

    def stop(self) -> Coroutine[Any, Any, None]:
        return self._call("control_stop", self._inner.stop())

    def broadcast(self, message: bytes) -> Coroutine[Any, Any, None]:
        return self._call("control_broadcast", self._inner.broadcast(message))

    def send(self, node: str, message: bytes) -> Coroutine[Any, Any, bool]:
        return self._call("control_send", self._inner.send(node, message), node)

    def survey(self, request: bytes, timeout_s: float) -> Coroutine[Any, Any, list[bytes]]:
        return self._call("control_survey", self._inner.survey(request, timeout_s), waits_s=timeout_s)

    def nodes(self) -> Coroutine[Any, Any, Sequence[str]]:
        return self._call("control_nodes", self._inner.nodes())


class InterceptedMigration:
    """A `Migration` whose calls run through an interceptor."""

    def __init__(self, inner: Migration, interceptor: CallInterceptor) -> None:
        self._inner = inner
        self._call = interceptor.call

    def status(self) -> Coroutine[Any, Any, MigrationStatus]:
        return self._call("migration_status", self._inner.status())

    def set_read_percent(self, percent: float) -> Coroutine[Any, Any, MigrationStatus]:
        return self._call("migration_set_read_percent", self._inner.set_read_percent(percent))

    def verify(self) -> Coroutine[Any, Any, MigrationStatus]:
        return self._call("migration_verify", self._inner.verify())


class InterceptedEngine(Engine, frozen=True, kw_only=True):
    """An engine whose calls run through an interceptor. State, housekeeping and figures are those of `inner`."""

    inner: Engine

    def state(self) -> EngineState:
        """See `Engine.state`."""
        return self.inner.state()

    def sweep(self) -> bool:
        """See `Engine.sweep`."""
        return self.inner.sweep()

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""
        return self.inner.statistics()


def intercept(engine: Engine, interceptor: CallInterceptor) -> InterceptedEngine:
    """An engine with the state and the callbacks of `engine`, whose calls run through `interceptor`."""
    return InterceptedEngine(
        engine.name,
        InterceptedBroker(engine.broker, interceptor, engine.start_wait_s, engine.stop_wait_s),
        InterceptedPresence(engine.presence, interceptor),
        InterceptedControlBus(engine.control, interceptor),
        durabilities=engine.durabilities,
        single_node=engine.single_node,
        start_wait_s=engine.start_wait_s,
        stop_wait_s=engine.stop_wait_s,
        migration=InterceptedMigration(engine.migration, interceptor),
        inner=engine,
    )
