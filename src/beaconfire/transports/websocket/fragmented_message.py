"""A message in fragments: joined, limited and checked as they come (RFC 6455 sections 5.4 and 8.1)."""

from __future__ import annotations

import codecs

from beaconfire.transports.websocket.closing import INVALID_DATA, MESSAGE_TOO_BIG, ProtocolViolation, too_big
from beaconfire.transports.websocket.deflate import Inflater

_UTF8 = codecs.getincrementaldecoder("utf-8")


class FragmentedMessage:
    """One fragmented message between its first and its last frame.

    Text is checked fragment by fragment, so that a bad one ends the connection before more is taken; a character may
    be divided between fragments. A compressed one is inflated fragment by fragment: what is limited, checked and kept
    is what it inflates to.
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
        """Returns how many bytes more the fragment took than it inflated to; 0 if it is not compressed.

        Raises ProtocolViolation when the message has grown too big, is no text, or cannot be inflated.
        """
        surplus = 0
        if self._inflater is not None:
            taken = len(data)
            data = self._inflater.add(data, final)
            surplus = max(0, taken - len(data))
        self._size += len(data)
        if self._size > self._limit:
            raise ProtocolViolation(MESSAGE_TOO_BIG, too_big(self._limit))
        if self._decoder is not None:
            try:
                self._decoder.decode(data, final)
            except UnicodeDecodeError:
                raise not_text() from None
            if self._is_half_surrogate():
                raise not_text()
        if data:  # a message of a million empty fragments holds no memory
            self._parts.append(data)
        return surplus

    def message(self) -> bytes:
        return b"".join(self._parts)

    def _is_half_surrogate(self) -> bool:
        """Whether what is left undecided can no longer become a character, which the decoder would notice late."""
        assert self._decoder is not None
        undecided = self._decoder.getstate()[0]
        return len(undecided) == 2 and undecided[0] == 0xED and undecided[1] >= 0xA0


def check_text(data: bytes) -> None:
    """Raises ProtocolViolation unless the whole message is UTF-8."""
    if data.isascii():
        return
    try:
        data.decode()
    except UnicodeDecodeError:
        raise not_text() from None


def not_text() -> ProtocolViolation:
    return ProtocolViolation(INVALID_DATA, "text message is not UTF-8")
