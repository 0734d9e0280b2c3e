"""One connection of a worker: the first messages, the calls that it requests, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from beaconfire.base.errors import LIMIT_EXCEEDED, CommandError, EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import is_being_cancelled, run_in_one_step, start_task
from beaconfire.base.timers import Timer
from beaconfire.engines.hub.calls import CALLS, Call, CallContext, Running
from beaconfire.engines.hub.channels import HubChannels
from beaconfire.engines.hub.nodes import HubNodes
from beaconfire.engines.port import Durability
from beaconfire.engines.wire.frames import MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, FrameStream
from beaconfire.engines.wire.messages import (
    PROTOCOL,
    ControlRequest,
    FromWorker,
    Hello,
    Message,
    Publish,
    ReadHistory,
    Refused,
    Reply,
    Request,
    SurveyAnswer,
    Welcome,
    decode_from_worker,
    encode,
)
from beaconfire.engines.wire.unix_socket import peer_problem
from beaconfire.engines.wire.values import to_failure
from beaconfire.model.events import EventSink, HubConnectionEnded, LimitHit, report_error

HELLO_TIMEOUT_S: Final = 5.0
"""How long a connection may be open without `Hello`."""

CALLS_MAX: Final = 4096
"""Calls of one worker that may wait for an inner engine that suspends. Meanwhile nothing more is read."""


class HubContext(Struct):
    """What all connections use. `suspends` and `immediate` are those of the inner engine."""

    welcome: Welcome
    suspends: bool
    immediate: tuple[Durability, ...]
    calls: CallContext
    channels: HubChannels
    nodes: HubNodes
    runtime: Runtime
    events: EventSink
    connections: dict[HubConnection, None]
    """All connections, which add and remove themselves."""
    on_last_lost: Callable[[], None]
    """Called when no connection is left."""
    is_stopped: bool = False
    """A connection that opens now comes too late."""


class HubConnection:
    """Implements `frames.Receiver` and `peer.Peer`.

    A call in which the inner engine never suspends is made in one step when its request arrives. Any other call runs in
    a task of its own. If the connection ends, calls that wait for the inner engine go on, and their replies
    are dropped.
    """

    def __init__(self, context: HubContext) -> None:
        self.attached: set[str] = set()
        self.node = ""
        self._worker = ""
        """The uid of the node that was registered last, for events."""
        self._context = context
        self._calls = context.calls
        self._suspends = context.suspends
        self._is_welcome = False
        self._hello_timer: Timer | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.stream: FrameStream[FromWorker] = FrameStream(
            self, decode_from_worker, context.runtime, REQUEST_BYTES_MAX, holds_while_full=True
        )
        self.write = self.stream.write
        """See `Peer.write`. Not a method, to save a call for each announcement."""

    # frames.Receiver

    def on_open(self) -> None:
        self._context.connections[self] = None
        problem = "the hub stops" if self._context.is_stopped else peer_problem(self.stream.extra_info("socket"))
        if problem:
            self.close(problem)
            return
        self._hello_timer = self._context.runtime.timers.after(HELLO_TIMEOUT_S, self._on_hello_timeout)

    def on_message(self, message: FromWorker) -> None:
        if not self._is_welcome:
            self._greet(message)
            return
        call = CALLS.get(type(message))
        if call is not None:
            if TYPE_CHECKING:
                assert isinstance(message, Request)  # as all rows of `CALLS`
            running = call.start(self._calls, self, message)
            if self._suspends and not self._is_immediate(message):
                self._start(message, call, running)
                return
            try:
                reply: Message = call.reply(message.id, run_in_one_step(running))
            except Exception as error:  # noqa: BLE001 - the worker gets it
                reply = self._failure(message, error)
            self.reply(reply)
        elif isinstance(message, ControlRequest):
            self._context.nodes.handle(self, message)
            self._worker = self.node or self._worker
        elif isinstance(message, SurveyAnswer):
            self._context.nodes.on_answer(self, message)
        else:
            self.close("a second Hello")

    def on_lost(self, reason: str) -> None:
        context = self._context
        self._cancel_timer()
        context.nodes.remove(self)
        context.channels.remove(self)
        context.events.emit(HubConnectionEnded(self._worker, reason))
        del context.connections[self]
        if not context.connections:
            context.on_last_lost()

    def on_limit(self, name: str) -> None:
        self._context.events.emit(LimitHit(name, ""))

    # peer.Peer

    @property
    def is_closed(self) -> bool:
        return self.stream.is_closed

    def reply(self, message: Message) -> None:
        frame = encode(message)
        if len(frame) > MESSAGE_BYTES_MAX and isinstance(message, Reply):
            problem = f"the answer has {len(frame)} bytes, and the hub sends {MESSAGE_BYTES_MAX} at most: ask for less"
            frame = encode(to_failure(message.id, CommandError(LIMIT_EXCEEDED, problem)))
        self.write(frame)

    def close(self, reason: str) -> None:
        self.stream.close(reason)

    def cancel_calls(self) -> None:
        """Cancels the calls that wait for the inner engine."""
        for task in list(self._running):
            task.cancel()

    # The first message

    def _greet(self, message: FromWorker) -> None:
        welcome = self._context.welcome
        if not isinstance(message, Hello):
            self.close(f"the first message is {type(message).__name__} and not Hello")
            return
        if message.protocol != PROTOCOL:
            reason = (
                f"protocol {message.protocol} of version {message.version}; the hub has version {welcome.version} "
                f"with protocol {PROTOCOL}"
            )
            self.write(encode(Refused(reason)))
            self.stream.end(reason)
            return
        self._is_welcome = True
        self._cancel_timer()
        self.write(encode(welcome))
        if message.node:
            self._worker = message.node
            self._context.nodes.register(self, message.node)

    def _on_hello_timeout(self) -> None:
        self.on_limit("hub_hello_timeout")
        self.close(f"no hello within {HELLO_TIMEOUT_S:g} s")

    def _cancel_timer(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()

    # Calls

    def _is_immediate(self, message: Message) -> bool:
        """Whether the inner engine never suspends in this call, although it does in others."""
        match message:
            case Publish(options=options):
                return options.history.durability in self._context.immediate
            case ReadHistory(options=options):
                return options.durability in self._context.immediate
            case _:
                return False

    def _start(self, request: Request, call: Call, running: Running) -> None:
        task = start_task(self._run(request, call, running))
        if task.done():  # pragma: no cover - only from Python 3.12 on
            return
        self._running.add(task)
        task.add_done_callback(self._on_done)
        if len(self._running) == CALLS_MAX:
            self.on_limit("hub_calls_max")
            self.stream.hold()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if len(self._running) == CALLS_MAX:
            self.stream.release()
        self._running.discard(task)

    async def _run(self, request: Request, call: Call, running: Running) -> None:
        try:
            reply: Message = call.reply(request.id, await running)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            reply = self._failure(request, error)
        self.reply(reply)

    def _failure(self, request: Request, error: BaseException) -> Message:
        if isinstance(error, CommandError):
            return to_failure(request.id, error)
        name = type(request).__name__
        report_error(self._context.events, f"hub {name}", error)
        problem = f"{name}: the hub has failed with {type(error).__name__}, see internal_error in its log"
        return to_failure(request.id, EngineUnavailable(problem))
