"""A simple model of RFC 6455: finds the first frame of a stream that violates it, and all of its violations.

The model does not define which messages must be delivered. It only explains differences: at a frame with two faults,
two implementations may report different ones, and may detect a fault before or after the frame is complete.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

from .frames import CLOSE, CONTINUATION, TEXT

_SENDABLE = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
_TEXT = codecs.getincrementaldecoder("utf-8")


class End(NamedTuple):
    """Why the stream ends: at its last byte, at a close frame, or at a frame with violations.

    `faults` are the close codes for that frame. `nonminimal` says whether its length is not in the shortest form,
    `complete` whether the whole frame was received, and `inside` whether a fragmented message was unfinished.
    """

    faults: frozenset[int]
    complete: bool
    inside: bool
    control: bool = False
    nonminimal: bool = False
    code: int = 0


class Model:
    """Reads a stream to its end."""

    def __init__(self, data: bytes, limit: int) -> None:
        self._data = data
        self._limit = limit
        self._size: int | None = None
        self._decoder: codecs.IncrementalDecoder | None = None

    def end(self) -> End:
        while len(self._data) >= 2:
            end = self._frame()
            if end is not None:
                return end
        return End(frozenset(), not self._data, self._size is not None)

    def _frame(self) -> End | None:
        data = self._data
        opcode, final = data[0] & 0xF, bool(data[0] & 0x80)
        faults: set[int] = set()
        if data[0] & 0x70 or opcode in (3, 4, 5, 6, 7) or opcode > 10 or not data[1] & 0x80:
            faults.add(1002)
        length, form = data[1] & 0x7F, 0
        if length > 125:
            form = 2 if length == 126 else 8
            if len(data) < 2 + form:
                return End(frozenset(faults | ({1002} if opcode > 7 else set())), False, self._size is not None)
            length = int.from_bytes(data[2 : 2 + form], "big")
        nonminimal = (form == 2 and length < 126) or (form == 8 and length < 65536)
        if nonminimal or length >> 63 or (opcode > 7 and (length > 125 or form or not final)):
            faults.add(1002)
        if length + (self._size or 0) > self._limit:
            faults.add(1009)
        begin = 2 + form + (4 if data[1] & 0x80 else 0)
        complete = len(data) >= begin + length
        payload = data[begin : begin + length]
        if data[1] & 0x80:
            mask = data[begin - 4 : begin]
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        inside = self._size is not None
        faults |= self._content(opcode, final, payload, complete)
        code = int.from_bytes(payload[:2], "big") if opcode == CLOSE and len(payload) > 1 else 0
        if faults or not complete or opcode == CLOSE:
            return End(frozenset(faults), complete, inside, opcode > 7, nonminimal, code)
        self._data = data[begin + length :]
        return None

    def _content(self, opcode: int, final: bool, payload: bytes, complete: bool) -> set[int]:
        """The faults of the received part of a frame's content."""
        if opcode == CLOSE:
            return _close_faults(payload) if complete else set()
        if opcode > 2:
            return set()
        faults: set[int] = set()
        if (opcode == CONTINUATION) is (self._size is None):
            faults.add(1002)
        if opcode != CONTINUATION:
            self._size = 0
            self._decoder = _TEXT() if opcode == TEXT else None
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, final and complete)
                left = self._decoder.getstate()[0]
                if len(left) == 2 and left[0] == 0xED and left[1] > 0x9F:
                    faults.add(1007)
            except UnicodeDecodeError:
                faults.add(1007)
        self._size = None if final and complete else (self._size or 0) + len(payload)
        return faults


def _close_faults(payload: bytes) -> set[int]:
    if len(payload) == 1:
        return {1002}
    faults: set[int] = set()
    if payload and int.from_bytes(payload[:2], "big") not in _SENDABLE:
        faults.add(1002)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        faults.add(1007)
    return faults
