"""WebSocket messages and close frames, without the framing, which our own connections and ASGI servers each add."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from beaconfire.protocols.port import Payload

JOINED_BYTES_MAX: Final = 64 * 1024
"""The largest WebSocket message that contains several protocol messages. A single protocol message may be larger."""

MESSAGE_TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011

REASON_BYTES_MAX: Final = 123
"""A control frame has at most 125 bytes, and two of them are the code (RFC 6455 section 5.5)."""


def join_payloads(payloads: Sequence[Payload], separator: bytes | None) -> Iterator[tuple[bytes, bool]]:
    """The WebSocket messages that contain the payloads in order: the data, and whether the message is binary.

    Payloads of the same kind share messages of up to 64 KiB, with the separator between them. Without a separator each
    payload is a message.
    """
    if separator is None:
        yield from payloads
        return
    for binary, group in groupby(payloads, key=_is_binary):
        joined: list[bytes] = []
        size = 0
        for data, _ in group:
            if joined and size + len(separator) + len(data) > JOINED_BYTES_MAX:
                yield separator.join(joined), binary
                joined, size = [], 0
            size += len(data) + (len(separator) if joined else 0)
            joined.append(data)
        yield separator.join(joined), binary


def _is_binary(payload: Payload) -> bool:
    return payload.binary


def too_big(limit: int) -> str:
    """The close reason for MESSAGE_TOO_BIG."""
    return f"message exceeds {limit:d} bytes"


def shorten_reason(reason: str) -> bytes:
    """The reason of a close frame. A long reason is truncated, never inside a character."""
    text = reason.encode()
    if len(text) > REASON_BYTES_MAX:
        text = text[:REASON_BYTES_MAX].decode(errors="ignore").encode()
    return text
