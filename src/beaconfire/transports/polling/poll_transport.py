"""The transport of a poll's session: it collects the session's messages for the response.

Between two requests the client keeps its positions, and with them the next session recovers what was published
meanwhile.

The size of a response is limited while it grows. Once the response is full, nothing more is written to it, and it is
sent with the positions reached so far. It also contains what the session has queued by then: at most what may be queued
for any client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from starlette.types import Receive

from beaconfire.base.errors import DisconnectCode
from beaconfire.model.handshake import Handshake
from beaconfire.model.results import ConnectionStart
from beaconfire.protocols.port import Frame
from beaconfire.transports.polling.request_transport import RequestTransport, disconnection, wait_event
from beaconfire.transports.port import Receiver, Transport


class OpenPoll(Protocol):
    """Opens the session of a poll on a `PollWire`, and returns it as the receiver."""

    def __call__(
        self, transport: Transport, handshake: Handshake, on_start: Callable[[ConnectionStart], None], /
    ) -> Receiver:
        """The session calls `on_start` once, when it is connected, before it writes its first message."""


class PollOutcome(Struct, frozen=True):
    """The messages of a session and its positions.

    `start` is None if the session has not connected. `end` is code and reason if the session ended itself.
    """

    messages: Sequence[bytes]
    start: ConnectionStart | None
    positions: Mapping[str, tuple[int, str]]
    end: tuple[DisconnectCode, str] | None


class PollTransport(RequestTransport):
    """The `Transport` of one poll. Call `gather` once."""

    def __init__(self, size_max: int, is_news: Callable[[ConnectionStart], bool]) -> None:
        """With `size_max` bytes of messages the response is full.

        `is_news` tells whether the first message, which says that the session is connected, is worth a response. Every
        later message is.
        """
        super().__init__()
        self._size_max = size_max
        self._size = 0
        self._is_news = is_news
        self._start: ConnectionStart | None = None
        self._starts_with_news = False
        self._messages: list[bytes] = []
        self._started = asyncio.Event()
        """Set with the first message, and when the session ends."""
        self._enough = asyncio.Event()
        self._is_finishing = False

    @property
    def _is_full(self) -> bool:
        return self._size >= self._size_max

    @property
    def writable(self) -> bool:
        return self._is_finishing or not self._is_full

    async def gather(
        self,
        open_session: OpenPoll,
        handshake: Handshake,
        receive: Receive,
        connect_request: bytes,
        connect_timeout_s: float,
        wait_s: float,
    ) -> PollOutcome | None:
        """Collects the messages of a session until there is news, the response is full, the session ends, or `wait_s`
        is over. Returns None if the client has disconnected before.

        `connect_timeout_s` is the time for the first message only, and the wait starts with that message: connecting
        may take time, for example to fetch keys, and even a client with a wait of zero must get the first message.
        """
        receiver = open_session(self, handshake, self._on_start)
        try:
            receiver.on_data(connect_request, False)
            async with disconnection(receive) as disconnected:
                if await wait_event(self._started, disconnected, connect_timeout_s):
                    await wait_event(self._enough, disconnected, wait_s)
                if disconnected.done():
                    return None
            self._is_finishing = True
            receiver.on_writable()  # the positions cover what the session has queued, so it must be written now
            return PollOutcome(tuple(self._messages), self._start, receiver.positions() or {}, self.end)
        finally:
            receiver.on_closed()  # the next session recovers what this session still writes

    def _on_start(self, start: ConnectionStart) -> None:
        self._start = start
        self._starts_with_news = self._is_news(start)

    def write(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._messages += frame.messages  # type: ignore[attr-defined]  # a `PollWire` makes `PollFrame`s
            self._size += len(frame)
        self._started.set()
        if self._is_full or self._starts_with_news or len(self._messages) > 1:
            self._enough.set()

    def stop_waiting(self) -> None:
        self._started.set()
        self._enough.set()
