"""Separates the messages of a protocol in the body of a streamed response."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.protocols.port import Codec, Payload


class StreamWire:
    """A codec whose messages each have the same prefix and the same suffix."""

    __slots__ = ("_codec", "_prefix", "_separator", "_suffix")

    def __init__(self, codec: Codec, prefix: bytes, suffix: bytes) -> None:
        self._codec = codec
        self._prefix = prefix
        self._suffix = suffix
        self._separator = suffix + prefix

    @property
    def codec(self) -> Codec:
        return self._codec

    def pack(self, payloads: Sequence[Payload]) -> bytes:
        """All payloads in order. Frames may be joined and cut anywhere: a response body has no message boundaries."""
        return self._prefix + self._separator.join([data for data, _ in payloads]) + self._suffix


def lines(codec: Codec) -> StreamWire:
    """One line for each message. Messages must not contain line breaks."""
    return StreamWire(codec, b"", b"\n")


def varint_delimited(codec: Codec) -> StreamWire:
    """For a codec that itself writes the length before each message."""
    return StreamWire(codec, b"", b"")


def events(codec: Codec) -> StreamWire:
    """One Server-Sent Event for each message. Messages must not contain line breaks (HTML standard, section 9.2.6)."""
    return StreamWire(codec, b"data: ", b"\n\n")
