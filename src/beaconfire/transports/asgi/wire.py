"""Packs messages of a protocol for an ASGI server, which makes a WebSocket message of each `websocket.send`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from beaconfire.protocols.port import Codec, Payload, Wire
from beaconfire.transports.websocket_messages import join_payloads
from beaconfire.transports.websocket_request import WebSocketRequest


class MessageFrame:
    """Implements `protocols.port.Frame`: one or more WebSocket messages, in order.

    ASGI has a `str` for a text message and `bytes` for a binary one. A text is decoded once for all sessions that share
    the frame.
    """

    __slots__ = ("_size", "messages")

    def __init__(self, messages: Sequence[tuple[bytes, bool]]) -> None:
        """`messages` are the data of each message, and whether the message is binary."""
        self.messages: tuple[str | bytes, ...] = tuple(data if binary else data.decode() for data, binary in messages)
        self._size = sum(len(data) for data, _ in messages)

    def __len__(self) -> int:
        return self._size


class MessageWire:
    """A codec whose messages become WebSocket messages of an ASGI server.

    If the codec has a separator, messages that are sent together share WebSocket messages of up to 64 KiB.
    """

    __slots__ = ("_codec", "_separator")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._separator: Final = codec.separator

    @property
    def codec(self) -> Codec:
        return self._codec

    def pack(self, payloads: Sequence[Payload]) -> MessageFrame:
        return MessageFrame(payloads if len(payloads) == 1 else list(join_payloads(payloads, self._separator)))


class MessageWires:
    """The wire of one codec. The ASGI server negotiates compression itself, so all connections share the wire."""

    __slots__ = ("_wire",)

    def __init__(self, codec: Codec) -> None:
        self._wire = MessageWire(codec)

    def select(self, request: WebSocketRequest) -> tuple[Wire, str]:
        return self._wire, ""
