"""Messages of a protocol in the body of a response that never ends: where one ends and the next begins."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.protocols.port import Codec, Frame, Payload


class StreamWire:
    """A codec whose every message stands between the same two texts."""

    __slots__ = ("_after", "_before", "_between", "_codec")

    def __init__(self, codec: Codec, before: bytes, after: bytes) -> None:
        self._codec = codec
        self._before = before
        self._after = after
        self._between = after + before

    @property
    def codec(self) -> Codec:
        return self._codec

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        """All payloads in order. Frames may be joined, and cut anywhere: a response has no messages of its own."""
        return self._before + self._between.join([data for data, _ in payloads]) + self._after


def lines(codec: Codec) -> StreamWire:
    """A line for each message, which must not contain line breaks."""
    return StreamWire(codec, b"", b"\n")


def varint_delimited(codec: Codec) -> StreamWire:
    """For a codec that puts the length in front of each message by itself."""
    return StreamWire(codec, b"", b"")


def events(codec: Codec) -> StreamWire:
    """A Server-Sent Event for each message, which must not contain line breaks (HTML standard, section 9.2.6)."""
    return StreamWire(codec, b"data: ", b"\n\n")
