"""Joining and checking of fragments."""

from __future__ import annotations

import pytest

from beaconfire.transports.websocket.closing import ProtocolViolation
from beaconfire.transports.websocket.fragmented_message import FragmentedMessage, check_text

VALID = ["κόσμε".encode(), "\U0010ffff\ud7ff\ue000\U00010000\u0000\u0080\u0800".encode(), "水\U0001f525".encode()]
INVALID = [
    b"\x80",
    b"\xbf\x80",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff\xff",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
]


@pytest.mark.parametrize("text", VALID)
def test_character_may_be_divided_between_fragments(text: bytes) -> None:
    """Valid text is accepted at every division."""
    for cut in range(len(text) + 1):
        message = FragmentedMessage(False, 1000)
        message.add(text[:cut], False)
        message.add(text[cut:], True)
        assert message.join() == text
    check_text(text)


@pytest.mark.parametrize("text", INVALID)
def test_invalid_text_fails_at_the_first_invalid_byte(text: bytes) -> None:
    """In fragments of one byte, the fragment fails that makes the text invalid, not a later one."""
    invalid_length = next(n for n in range(1, len(text) + 1) if not could_become_text(text[:n]))
    message = FragmentedMessage(False, 1000)
    for index in range(invalid_length - 1):
        message.add(text[index : index + 1], False)
    with pytest.raises(ProtocolViolation) as caught:
        message.add(text[invalid_length - 1 : invalid_length], False)
    assert caught.value.code == 1007
    with pytest.raises(ProtocolViolation):
        check_text(text)


def could_become_text(prefix: bytes) -> bool:
    """Tries whether any continuation of the prefix is UTF-8."""
    tails = [b"", *[bytes([last]) for last in (0x80, 0x90, 0xA0, 0xBF)]]
    tails += [tail + b"\x80" for tail in tails] + [tail + b"\x80\x80" for tail in tails]
    return any(is_text(prefix + tail) for tail in tails)


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_incomplete_character_fails_at_the_end() -> None:
    """A text message must not end inside a character."""
    message = FragmentedMessage(False, 1000)
    message.add(b"\xe6\xb0", False)
    with pytest.raises(ProtocolViolation) as caught:
        message.add(b"", True)
    assert caught.value.code == 1007


def test_binary_messages_are_not_checked() -> None:
    """They may contain any bytes."""
    message = FragmentedMessage(True, 1000)
    message.add(b"\xff", False)
    message.add(b"\xfe", True)
    assert (message.join(), message.binary) == (b"\xff\xfe", True)


def test_size_limit_is_for_all_fragments_together() -> None:
    """The message may have the size of the limit, in any division."""
    message = FragmentedMessage(True, 10)
    message.add(b"x" * 4, False)
    message.add(b"x" * 6, False)
    message.add(b"", False)
    with pytest.raises(ProtocolViolation) as caught:
        message.add(b"x", True)
    assert caught.value.code == 1009
