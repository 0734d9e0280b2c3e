"""Close frames: which codes may travel, and their payload (RFC 6455 sections 5.5.1 and 7.4)."""

from __future__ import annotations

PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011

REASON_BYTES_MAX = 123
"""A control frame holds 125 bytes, two of which are the code."""


class ProtocolViolation(Exception):
    """The peer broke RFC 6455. `code` is the close code it gets, `reason` the text beside it."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def too_big(limit: int) -> str:
    """The reason beside MESSAGE_TOO_BIG."""
    return f"message exceeds {limit:d} bytes"


def is_sendable_code(code: int) -> bool:
    """Whether a peer may put this code into a close frame.

    1004 is reserved, 1005, 1006 and 1015 are for local use only, the rest of 1000-2999 is unassigned (RFC 6455
    section 7.4 and the IANA registry it founded); 3000-4999 belong to libraries and applications.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_payload(code: int, reason: str) -> bytes:
    """The payload of a close frame; the reason is cut to what fits, never inside a character."""
    text = reason.encode()
    if len(text) > REASON_BYTES_MAX:
        text = text[:REASON_BYTES_MAX].decode(errors="ignore").encode()
    return code.to_bytes(2, "big") + text


def echoed_payload(payload: bytes) -> bytes:
    """What answers a peer's close frame: its own code, or nothing to nothing. Raises ProtocolViolation."""
    if not payload:
        return b""
    if len(payload) == 1:
        raise ProtocolViolation(PROTOCOL_ERROR, "close frame with half a code")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable_code(code):
        raise ProtocolViolation(PROTOCOL_ERROR, f"close code {code} must not be sent")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolViolation(INVALID_DATA, "close reason is not UTF-8") from None
    return payload[:2]
