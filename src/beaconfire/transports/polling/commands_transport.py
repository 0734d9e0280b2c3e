"""The transport of a session that runs the commands of one request: it collects their replies for the response.

The session hands over each reply by a callback, apart from everything else that it sends. The client gets its
publications by polls, so whatever the session writes is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct
from starlette.types import Receive

from beaconfire.base.errors import CommandError, DisconnectCode
from beaconfire.base.loop import SLICE_S
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Frame
from beaconfire.transports.polling.request_transport import RequestTransport, disconnection, wait_event
from beaconfire.transports.port import Receiver, Transport

CONNECT_REF: Final = 1
"""The ref of the connect command, the first command of a session."""


class OpenCommands(Protocol):
    """Opens the session of a request with commands, and returns it as the receiver."""

    def __call__(
        self,
        transport: Transport,
        handshake: Handshake,
        on_reply: Callable[[bytes, CommandError | None, object], None],
        /,
    ) -> Receiver:
        """The session calls `on_reply` with each encoded reply, the error of a command that has failed, and the ref of
        the command. For a command that has no reply, the session calls `on_reply` with an empty message."""


class CommandsOutcome(Struct, frozen=True):
    """The replies to the commands after connect, in their order, and how many of these commands have been run.

    `refusal` is the error reply to connect, if connect has failed. `is_full` tells that the replies have reached the
    size of a response. `end` is code and reason if the session ended itself.
    """

    replies: Sequence[bytes]
    commands_run: int
    refusal: bytes | None
    is_full: bool
    end: tuple[DisconnectCode, str] | None


class CommandsTransport(RequestTransport):
    """The `Transport` of one request with commands. Call `exchange` once."""

    writable = True

    def __init__(self, size_max: int) -> None:
        """With `size_max` bytes of replies the response is full. The reply to connect is not part of the response."""
        super().__init__()
        self._size_max = size_max
        self._size = 0
        self._replies: list[bytes] = []
        self._commands_run = 0
        self._refusal: bytes | None = None
        self._replied = asyncio.Event()
        """Set with each reply, and when the session ends."""

    @property
    def _is_full(self) -> bool:
        return self._size >= self._size_max

    async def exchange(
        self,
        open_session: OpenCommands,
        handshake: Handshake,
        receive: Receive,
        commands: Sequence[bytes],
        timeout_s: float,
    ) -> CommandsOutcome | None:
        """Passes commands to a session one by one, each after the reply to the previous one, and collects the replies.

        The first command is connect. Ends early if the response is full, the session ends, connect fails, or
        `timeout_s` is over. Returns None if the client has disconnected.
        """
        receiver = open_session(self, handshake, self._on_reply)
        try:
            async with disconnection(receive) as disconnected:
                await self._run(receiver, commands, disconnected, timeout_s)
                if disconnected.done():
                    return None
        finally:
            receiver.on_closed()
        return CommandsOutcome(tuple(self._replies), self._commands_run, self._refusal, self._is_full, self.end)

    async def _run(
        self, receiver: Receiver, commands: Sequence[bytes], disconnected: asyncio.Task[None], timeout_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        slice_s = loop.time()
        deadline_s = slice_s + timeout_s
        for command in commands:
            self._replied.clear()
            receiver.on_data(command, False)
            if not self._replied.is_set() and not await wait_event(
                self._replied, disconnected, deadline_s - loop.time()
            ):
                return
            if self.end is not None or self._is_full or self._refusal is not None:
                return
            if loop.time() - slice_s > SLICE_S:
                await asyncio.sleep(0)
                slice_s = loop.time()

    def _on_reply(self, message: bytes, error: CommandError | None, ref: object) -> None:
        if ref == CONNECT_REF:
            self._refusal = message if error is not None else None
        else:
            self._commands_run += 1
            self._size += len(message)
            if message:
                self._replies.append(message)
        self._replied.set()

    def write(self, frames: Sequence[Frame]) -> None:
        """Drops the frames: they contain pushes, which the client gets by polls."""

    def stop_waiting(self) -> None:
        self._replied.set()
