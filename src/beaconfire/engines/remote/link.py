"""The link to the hub: connects, reconnects, and tells the node when the link is down and up again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import start_task
from beaconfire.base.timers import Timer
from beaconfire.engines.port import BrokerEvents, Durability, EngineState
from beaconfire.engines.remote.connection import Connection
from beaconfire.engines.wire.messages import PROTOCOL, Hello, Message, Reply, Request, Welcome
from beaconfire.engines.wire.unix_socket import OpenConnection

ReplyT = TypeVar("ReplyT", bound=Reply)


DELAY_MAX_S: Final = 0.25
"""The longest wait between two attempts. An attempt on the same machine costs next to nothing, and clients wait."""


class Link:
    """The one connection of this worker to the hub.

    After `start` the link stays up, or reconnects with growing delays, `DELAY_MAX_S` at most, until `stop`. While it is
    down, each call fails at once.
    """

    def __init__(
        self,
        path: str,
        name: str,
        version: str,
        durabilities: tuple[Durability, ...],
        keeps_order: bool,
        runtime: Runtime,
        open_connection: OpenConnection,
    ) -> None:
        """See `remote_engine`."""
        self.node = ""
        """The uid of the node while its control bus is started: the hub learns it at each connection."""
        self.hub: Welcome | None = None
        """What the hub said about itself at the last connection."""
        self._path = path
        self._name = name
        self._version = version
        self._durabilities = durabilities
        self._keeps_order = keeps_order
        self._runtime = runtime
        self._open_connection = open_connection
        self._backoff = Backoff(runtime.random)
        self._handlers: dict[type[Message], Callable[[Any], None]] = {}
        self._events: BrokerEvents | None = None
        """Set from `start` to `stop`."""
        self._connection: Connection | None = None
        """Set while the link is up."""
        self._problem = "not started"
        """Why the link is down."""
        self._failures = 0
        """Failed attempts since the link was up."""
        self._timer: Timer | None = None
        self._attempt: asyncio.Task[None] | None = None

    def handle(self, kind: type[Message], handler: Callable[[Any], None]) -> None:
        """`handler` gets the messages of this type that the hub sends without a request. It must not raise."""
        self._handlers[kind] = handler

    async def start(self, events: BrokerEvents) -> None:
        """Connects. Raises EngineUnavailable if that fails; then nothing goes on, and `start` may be called again.
        Raises RuntimeError if the link is started."""
        if self._events is not None:
            raise RuntimeError("the remote engine is already started")
        self._events = events
        try:
            await self._connect()
        except BaseException:
            self._events = None
            raise

    async def stop(self) -> None:
        """Ends the connection, or the attempts to connect. Nothing more is told. Idempotent."""
        self._events = None
        self._problem = "stopped"
        if self._timer is not None:
            self._timer.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.end()

    def state(self) -> EngineState:
        if self._connection is not None:
            return EngineState(True)
        return EngineState(False, f"the link to the hub is down: {self._problem}")

    def send(self, request: Request, reply: type[ReplyT]) -> asyncio.Future[ReplyT]:
        """See `Connection.send`. Raises EngineUnavailable while the link is down."""
        connection = self._connection
        if connection is None:
            name = type(request).__name__
            raise EngineUnavailable(f"{name}: engine {self._name!r}: the link to the hub is down: {self._problem}")
        return connection.send(request, reply)

    def tell(self, frame: bytes) -> None:
        """Sends a frame that has no reply. The frame is dropped while the link is down."""
        if self._connection is not None:
            self._connection.write(frame)

    async def _connect(self) -> None:
        connection = Connection(self._runtime, self._handlers, self._on_lost)
        try:
            hello = Hello(PROTOCOL, self.node, self._version)
            welcome = await connection.open(self._open_connection, self._path, hello)
            problem = self._difference(welcome)
            if problem:
                raise EngineUnavailable(f"the hub's engine {welcome.engine!r} {problem}")
        except EngineUnavailable as error:
            self._problem = error.detail
            connection.close(error.detail)
            raise
        self.hub = welcome
        self._connection = connection
        self._failures = 0

    def _difference(self, welcome: Welcome) -> str:
        """How the hub's engine differs from what this node was told about it. Empty if it does not."""
        if welcome.durabilities != self._durabilities:
            return f"offers {', '.join(welcome.durabilities)}, and not {', '.join(self._durabilities)}"
        if welcome.keeps_order != self._keeps_order:
            return f"{'keeps' if welcome.keeps_order else 'does not keep'} the order of publishes"
        return ""

    # The end of a connection, and the next one

    def _on_lost(self, connection: Connection, reason: str) -> None:
        if connection is not self._connection:
            return  # A failed attempt, or the link was stopped.
        self._connection = None
        self._problem = reason
        self._connect_later()
        if self._events is not None:
            self._events.on_link_down(None)

    def _connect_later(self) -> None:
        self._failures += 1
        delay_s = min(self._backoff.delay_s(self._failures), DELAY_MAX_S)
        self._timer = self._runtime.prompt_timers.after(delay_s, self._start_attempt)

    def _start_attempt(self) -> None:
        self._attempt = start_task(self._connect_again())

    async def _connect_again(self) -> None:
        try:
            await self._connect()
        except Exception as error:  # noqa: BLE001 - whatever it is, the link must come back
            if not isinstance(error, EngineUnavailable):
                self._problem = repr(error)
            self._connect_later()
            return
        self._attempt = None
        if self._events is not None:
            self._events.on_link_up(None)
