"""Keeps the messages of a protocol apart, because the response to a poll is a list of messages."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.protocols.port import Codec, Payload


class PollFrame:
    """Implements `protocols.port.Frame`: one or more encoded messages, in order."""

    __slots__ = ("_size", "messages")

    def __init__(self, messages: Sequence[bytes]) -> None:
        self.messages = messages
        self._size = sum(map(len, messages))

    def __len__(self) -> int:
        return self._size


class PollWire:
    """A codec of a JSON protocol whose messages become elements of a JSON array."""

    __slots__ = ("_codec",)

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    @property
    def codec(self) -> Codec:
        return self._codec

    def pack(self, payloads: Sequence[Payload]) -> PollFrame:
        return PollFrame([data for data, _ in payloads])
