"""Close codes and close payloads."""

from __future__ import annotations

import pytest

from beaconfire.transports.websocket.closing import (
    ProtocolViolation,
    close_payload,
    echoed_payload,
    is_sendable_code,
)


def test_sendable_codes() -> None:
    """The assigned codes below 3000 that are not for local use, and all codes from 3000 to 4999."""
    allowed = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(65536) if is_sendable_code(code)} == allowed


def test_payload_has_code_and_reason() -> None:
    """Two bytes of code in network byte order, then the reason."""
    assert close_payload(3000, "") == b"\x0b\xb8"
    assert close_payload(1000, "bye é") == b"\x03\xe8bye \xc3\xa9"


def test_long_reason_is_truncated_between_characters() -> None:
    """The reason has at most 123 bytes and no incomplete character."""
    assert close_payload(1000, "x" * 123)[2:] == b"x" * 123
    assert close_payload(1000, "x" * 124)[2:] == b"x" * 123
    assert close_payload(1000, "x" * 122 + "é")[2:] == b"x" * 122
    assert close_payload(1000, "€" * 50)[2:] == "€".encode() * 41


def test_echo_contains_only_the_code() -> None:
    """A close frame without a code is answered by one without a code."""
    assert echoed_payload(b"") == b""
    assert echoed_payload(b"\x03\xe8") == b"\x03\xe8"
    assert echoed_payload(b"\x0f\xa0because") == b"\x0f\xa0"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"\x03", 1002),
        (b"\x00\x00", 1002),
        (b"\x03\xed", 1002),
        (b"\x03\xee", 1002),
        (b"\x03\xf7", 1002),
        (b"\x13\x88", 1002),
        (b"\x03\xe8\xff", 1007),
        (b"\x03\xed\xff", 1002),
    ],
)
def test_invalid_close_frames_are_violations(payload: bytes, code: int) -> None:
    """An incomplete code, a code that must not be sent, and a reason that is not UTF-8."""
    with pytest.raises(ProtocolViolation) as caught:
        echoed_payload(payload)
    assert caught.value.code == code
