"""Commands of clients that arrive at another node than the one with their session.

A client whose transport is a response stream sends its commands as separate requests, and a load balancer may send each
of them to any node. The node that gets such a request passes the commands on over the control bus, and waits for the
answer of the other node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.engines.port import ControlBus
from beaconfire.model.events import EventSink, LimitHit

ANSWER_TIMEOUT_S: Final = 3.0
"""How long the other node may take until its session has received the commands."""

WAITING_MAX: Final = 10_000
"""Requests of clients that may wait for other nodes at the same time. Further ones are refused."""


class Forwarded(Struct, frozen=True, tag=True):
    """Commands for the session with this secret. `sender` is the node that waits for the answer."""

    sender: str
    number: int
    session: str
    data: bytes
    binary: bool


class ForwardingAnswer(Struct, frozen=True, tag=True):
    """Whether the session has received the commands."""

    number: int
    received: bool


ForwardingMessage: TypeAlias = Forwarded | ForwardingAnswer

ReceiveCommands: TypeAlias = Callable[[str, bytes, bool], Awaitable[bool]]
"""Gives commands to the session with this secret on this node: secret, data, and whether the data is binary. False if
the session is unknown or has another encoding."""


class Forwarding:
    """Passes commands to the node that has the session."""

    def __init__(
        self, control: ControlBus, uid: str, timers: Timers, background: BackgroundTasks, events: EventSink
    ) -> None:
        """`uid` is the unique id of this node."""
        self.receive: ReceiveCommands | None = None
        """Set by the endpoint of emulation, if this node has it."""
        self._control = control
        self._uid = uid
        self._timers = timers
        self._background = background
        self._events = events
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._last_number = 0

    async def forward(self, node: str, session: str, data: bytes, binary: bool) -> bool:
        """True when the session on that node has received the commands. False if the node is not live or does not know
        the session.

        Raises EngineUnavailable if the node cannot be reached, or has not answered within `ANSWER_TIMEOUT_S`: then it
        is not known whether the session has received the commands.
        """
        if len(self._waiting) >= WAITING_MAX:
            self._events.emit(LimitHit("forwarded_commands_max", ""))
            raise EngineUnavailable(f"{WAITING_MAX} requests wait for other nodes already")
        self._last_number = number = self._last_number + 1
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        timer = self._timers.after(ANSWER_TIMEOUT_S, lambda: self._on_timeout(number))
        try:
            message = msgspec.msgpack.encode(Forwarded(self._uid, number, session, data, binary))
            return await self._control.send(node, message) and await answer
        finally:
            timer.cancel()
            self._waiting.pop(number, None)

    def _on_timeout(self, number: int) -> None:
        answer = self._waiting.pop(number, None)
        if answer is not None and not answer.done():
            answer.set_exception(EngineUnavailable(f"the other node has not answered within {ANSWER_TIMEOUT_S:g} s"))

    def on_message(self, message: ForwardingMessage) -> None:
        """Handles a message of another node."""
        if isinstance(message, Forwarded):
            self._background.start(self._answer(message))
            return
        answer = self._waiting.get(message.number)
        if answer is not None and not answer.done():
            answer.set_result(message.received)

    async def _answer(self, message: Forwarded) -> None:
        received = self.receive is not None and await self.receive(message.session, message.data, message.binary)
        await self._control.send(message.sender, msgspec.msgpack.encode(ForwardingAnswer(message.number, received)))
