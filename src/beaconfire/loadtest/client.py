"""One connection of the load test: says hello, subscribes, publishes what it is told to, and hears everything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from beaconfire.loadtest.codes import LOST, Kind
from beaconfire.loadtest.dialect import Dialect, FormatError, Heard
from beaconfire.loadtest.ledger import Ledger
from beaconfire.loadtest.tally import Tally

_NO_CODE: Final = 1005


class EntryError(Exception):
    """The server did not let the connection in. The ledger has the reason."""


class Client(WSListener):
    """`enter` first; then it counts what it hears in the ledger until either side ends it.

    `is_in` holds from the last subscription to the end.
    """

    def __init__(self, dialect: Dialect, ledger: Ledger, names: dict[int, str]) -> None:
        self._dialect = dialect
        self._ledger = ledger
        self._names = names
        self._kind = WSMsgType.BINARY if dialect.binary else WSMsgType.TEXT
        self._transport: WSTransport | None = None
        self._number = 0
        self._unanswered: set[int] = set()
        self._entry: asyncio.Future[None] | None = None
        self._pongs = False
        self._parts = b""
        self._closing = False
        self._close = LOST, ""
        self._tallies: dict[int, Tally] = {}
        self.is_in = False

    def expect(self, publishers: int) -> None:
        """A run begins: nothing has been heard of it yet."""
        self._tallies = {channel: Tally(publishers) for channel in self._names}

    # --- to the server ---

    async def enter(self, token: str) -> None:
        """Authenticates and subscribes. Raises EntryError."""
        await self._ask([self._dialect.connect(self._next(), token)])
        await self._ask([self._dialect.subscribe(self._next(), name) for name in self._names.values()])
        self.is_in = True

    def publish(self, channel: int, data: bytes) -> None:
        """The answer is awaited by nobody; if it is an error, it is counted."""
        self._number += 1
        self._send(self._dialect.publish(self._number, self._names[channel], data))

    def close(self) -> None:
        """Ends the connection; that counts as no trouble."""
        self._closing = True
        self.is_in = False
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect(graceful=False)

    def _next(self) -> int:
        self._number += 1
        self._unanswered.add(self._number)
        return self._number

    async def _ask(self, commands: Sequence[bytes]) -> None:
        if self._transport is None or self._transport.is_disconnected:
            raise EntryError
        self._entry = asyncio.get_running_loop().create_future()
        for command in commands:
            self._send(command)
        await self._entry

    def _send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.send(self._kind, data)

    # --- from the server ---

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        payload = frame.get_payload_as_bytes()
        if kind is WSMsgType.CLOSE:
            self._closed(payload)
        elif kind is WSMsgType.PONG or kind is WSMsgType.PING:
            pass  # picows answers pings
        elif frame.fin and not self._parts:
            self._data(payload)
        else:
            self._parts += payload
            if frame.fin:
                payload, self._parts = self._parts, b""
                self._data(payload)

    def _data(self, payload: bytes) -> None:
        ledger = self._ledger
        try:
            found = ledger.read(payload)
            if found.marks:
                now_ns = ledger.now_ns()
                for channel, message, due_ns in found.marks:
                    tally = self._tallies.get(channel)
                    if tally is not None:
                        ledger.count(tally.arrive(message), due_ns, now_ns)
            for other in found.others:
                self._heard(self._dialect.read(other))
        except FormatError as error:
            ledger.trouble(Kind.ERROR, 0, str(error))
            self.close()
            self._refuse_entry()

    def _heard(self, heard: Heard) -> None:
        if heard.is_ping:
            if self._pongs:
                self._send(self._dialect.pong)
            return
        if heard.pong:
            self._pongs = True
        if heard.error is not None:
            self._ledger.trouble(Kind.ERROR, heard.error.code, heard.error.message)
        if heard.unsubscribed is not None:
            self._ledger.trouble(Kind.UNSUBSCRIBE, heard.unsubscribed.code, heard.unsubscribed.message)
        if heard.id in self._unanswered:
            self._unanswered.discard(heard.id)
            if heard.error is not None:
                self._refuse_entry()
            elif not self._unanswered and self._entry is not None and not self._entry.done():
                self._entry.set_result(None)

    def _closed(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if payload else _NO_CODE
        self._close = code, payload[2:].decode(errors="replace")
        assert self._transport is not None
        self._transport.send_close(WSCloseCode.OK)
        self._transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.is_in = False
        if not self._closing:
            self._ledger.trouble(Kind.DISCONNECT, *self._close)
        self._refuse_entry()

    def _refuse_entry(self) -> None:
        if self._entry is not None and not self._entry.done():
            self._entry.set_exception(EntryError())
