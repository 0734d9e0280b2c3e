"""One connection of the load test: connects, subscribes, publishes on request, and counts what it receives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from beaconfire.loadtest.failures import LOST, FailureKind
from beaconfire.loadtest.messages import Encoding
from beaconfire.loadtest.results import Results
from beaconfire.loadtest.sequence import SequenceChecker
from beaconfire.model.pushes import UnsubscribePush
from beaconfire.protocols.centrifuge.client_codec import PING, Reply, ReplyError, ServerMessage
from beaconfire.protocols.centrifuge.requests import ConnectRequest, SubscribeRequest
from beaconfire.protocols.centrifuge.results import ConnectResult
from beaconfire.protocols.port import ProtocolError

_NO_CODE: Final = 1005
"""The code of a close frame without a code (RFC 6455, section 7.1.5)."""

_CLIENT_NAME: Final = "beaconfire-bench"


class ConnectError(Exception):
    """The server did not accept the connection or a subscription. The failure is in the results."""


class LoadClient(WSListener):
    """After `connect`, counts in the results what it receives, until either side closes the connection.

    `ready` is true from the last subscription until the connection ends. `channels` maps numbers to names.
    """

    def __init__(self, encoding: Encoding, results: Results, channels: Mapping[int, str]) -> None:
        self._codec = encoding.codec
        self._encode_publish = encoding.encode_publish
        self._results = results
        self._channels = channels
        self._frame_type = WSMsgType.BINARY if encoding.codec.binary else WSMsgType.TEXT
        self._transport: WSTransport | None = None
        self._number = 0
        self._unanswered: set[int] = set()
        self._answered: asyncio.Future[None] | None = None
        self._sends_pongs = False
        self._fragments = b""
        self._closing = False
        self._close = LOST, ""
        self._checkers: dict[int, SequenceChecker] = {}
        self.ready = False

    def start_run(self, publishers: int) -> None:
        """Forgets the messages of earlier runs. `publishers` is the number of publishers of each channel."""
        self._checkers = {channel: SequenceChecker(publishers) for channel in self._channels}

    # --- to the server ---

    async def connect(self, token: str) -> None:
        """Authenticates and subscribes. Raises ConnectError."""
        await self._command([ConnectRequest(token=token, name=_CLIENT_NAME)])
        await self._command([SubscribeRequest(channel) for channel in self._channels.values()])
        self.ready = True

    def publish(self, channel: int, data: bytes) -> None:
        """Does not wait for the reply. If the reply is an error, it is counted as a failure."""
        self._number += 1
        self._send(self._encode_publish(self._number, self._channels[channel], data))

    def close(self) -> None:
        """Closes the connection. This does not count as a failure."""
        self._closing = True
        self.ready = False
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect(graceful=False)

    async def _command(self, requests: Sequence[ConnectRequest | SubscribeRequest]) -> None:
        """Sends commands and waits for all replies. Raises ConnectError if one is an error."""
        if self._transport is None or self._transport.is_disconnected:
            raise ConnectError
        self._answered = asyncio.get_running_loop().create_future()
        for request in requests:
            self._number += 1
            self._unanswered.add(self._number)
            self._send(self._codec.encode(self._number, request))
        await self._answered

    def _send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.send(self._frame_type, data)

    # --- from the server ---

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        payload = frame.get_payload_as_bytes()
        if kind is WSMsgType.CLOSE:
            self._receive_close(payload)
        elif kind is WSMsgType.PONG or kind is WSMsgType.PING:
            pass  # picows answers WebSocket pings
        elif frame.fin and not self._fragments:
            self._receive(payload)
        else:
            self._fragments += payload
            if frame.fin:
                payload, self._fragments = self._fragments, b""
                self._receive(payload)

    def _receive(self, payload: bytes) -> None:
        results = self._results
        try:
            frame = results.parse_frame(payload)
            if frame.deliveries:
                now_ns = results.now_ns()
                for channel, message, due_ns in frame.deliveries:
                    checker = self._checkers.get(channel)
                    if checker is not None:
                        results.count(checker.check(message), due_ns, now_ns)
            for other in frame.others:
                self._receive_message(self._codec.decode(other))
        except ProtocolError as error:
            results.add_failure(FailureKind.ERROR, 0, str(error))
            self.close()
            self._fail_connect()

    def _receive_message(self, message: ServerMessage) -> None:
        if message is PING:
            if self._sends_pongs:
                self._send(self._codec.pong)
        elif isinstance(message, UnsubscribePush):
            self._results.add_failure(FailureKind.UNSUBSCRIBE, message.code, message.reason)
        elif isinstance(message, Reply):
            self._receive_reply(message)

    def _receive_reply(self, reply: Reply) -> None:
        result = reply.result
        if isinstance(result, ReplyError):
            self._results.add_failure(FailureKind.ERROR, result.code, result.message)
        elif isinstance(result, ConnectResult):
            self._sends_pongs = result.pong
        if reply.id not in self._unanswered:
            return
        self._unanswered.discard(reply.id)
        if isinstance(result, ReplyError):
            self._fail_connect()
        elif not self._unanswered and self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _receive_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if payload else _NO_CODE
        self._close = code, payload[2:].decode(errors="replace")
        assert self._transport is not None
        self._transport.send_close(WSCloseCode.OK)
        self._transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.ready = False
        if not self._closing:
            self._results.add_failure(FailureKind.DISCONNECT, *self._close)
        self._fail_connect()

    def _fail_connect(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectError())
