"""Close frames: the permitted codes and the payload (RFC 6455 sections 5.5.1 and 7.4)."""

from __future__ import annotations

from beaconfire.transports.websocket_messages import shorten_reason

PROTOCOL_ERROR = 1002
INVALID_DATA = 1007


class ProtocolViolation(Exception):
    """The peer violated RFC 6455. `code` is the close code for it and `reason` the close reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def is_sendable_code(code: int) -> bool:
    """Whether a peer may send this code in a close frame.

    1004 is reserved; 1005, 1006 and 1015 are for local use only; the rest of 1000-2999 is unassigned (RFC 6455
    section 7.4 and its IANA registry). 3000-4999 belong to libraries and applications.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_payload(code: int, reason: str) -> bytes:
    """The payload of a close frame. A long reason is truncated, never inside a character."""
    return code.to_bytes(2, "big") + shorten_reason(reason)


def echoed_payload(payload: bytes) -> bytes:
    """The payload of the response to a peer's close frame: the peer's code, or nothing if it sent none.

    Raises ProtocolViolation.
    """
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
