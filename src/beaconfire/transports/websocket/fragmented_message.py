"""Joins, limits and checks the fragments of a message as they are received (RFC 6455 sections 5.4 and 8.1)."""

from __future__ import annotations

import codecs

from beaconfire.transports.websocket.closing import INVALID_DATA, ProtocolViolation
from beaconfire.transports.websocket.deflate import Inflater
from beaconfire.transports.websocket_messages import MESSAGE_TOO_BIG, too_big

_UTF8 = codecs.getincrementaldecoder("utf-8")


class FragmentedMessage:
    """One fragmented message between its first and its last frame.

    Text is checked after each fragment, so that invalid text ends the connection at once. A character may be divided
    between fragments. A compressed message is inflated fragment by fragment, and the inflated data is limited, checked
    and kept.
    """

    __slots__ = ("_decoder", "_inflater", "_limit", "_parts", "_size", "binary")

    def __init__(self, binary: bool, size_limit: int, compressed: bool = False) -> None:
        self.binary = binary
        self._limit = size_limit
        self._inflater = Inflater(size_limit) if compressed else None
        self._size = 0
        self._parts: list[bytes] = []
        self._decoder = None if binary else _UTF8()

    def add(self, data: bytes, final: bool) -> int:
        """Adds a fragment. Returns by how many bytes it is larger than its inflated data; 0 if it is not compressed.

        Raises ProtocolViolation if the message is too big, is invalid text, or cannot be inflated.
        """
        surplus = 0
        if self._inflater is not None:
            compressed_size = len(data)
            data = self._inflater.add(data, final)
            surplus = max(0, compressed_size - len(data))
        self._size += len(data)
        if self._size > self._limit:
            raise ProtocolViolation(MESSAGE_TOO_BIG, too_big(self._limit))
        if self._decoder is not None:
            try:
                self._decoder.decode(data, final)
            except UnicodeDecodeError:
                raise invalid_text() from None
            if self._is_half_surrogate():
                raise invalid_text()
        if data:  # so a million empty fragments take no memory
            self._parts.append(data)
        return surplus

    def join(self) -> bytes:
        """The whole message."""
        return b"".join(self._parts)

    def _is_half_surrogate(self) -> bool:
        """Whether the incomplete last character is a surrogate, which the decoder would notice one byte later."""
        assert self._decoder is not None
        incomplete = self._decoder.getstate()[0]
        return len(incomplete) == 2 and incomplete[0] == 0xED and incomplete[1] >= 0xA0


def check_text(data: bytes) -> None:
    """Raises ProtocolViolation unless the whole message is UTF-8."""
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError:
        raise invalid_text() from None


def invalid_text() -> ProtocolViolation:
    return ProtocolViolation(INVALID_DATA, "text message is not UTF-8")
