"""Messages in fragments."""

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
def test_characters_may_be_divided(text: bytes) -> None:
    """Valid text is accepted wherever it is cut, in two and in single bytes."""
    for cut in range(len(text) + 1):
        assembly = FragmentedMessage(False, 1000)
        assembly.add(text[:cut], False)
        assembly.add(text[cut:], True)
        assert assembly.join() == text
    check_text(text)


@pytest.mark.parametrize("text", INVALID)
def test_bad_text_fails_at_the_first_impossible_byte(text: bytes) -> None:
    """Byte by byte, the fragment that makes the text impossible fails, not a later one."""
    impossible = next(n for n in range(1, len(text) + 1) if not could_become_text(text[:n]))
    assembly = FragmentedMessage(False, 1000)
    for index in range(impossible - 1):
        assembly.add(text[index : index + 1], False)
    with pytest.raises(ProtocolViolation) as caught:
        assembly.add(text[impossible - 1 : impossible], False)
    assert caught.value.code == 1007
    with pytest.raises(ProtocolViolation):
        check_text(text)


def could_become_text(prefix: bytes) -> bool:
    """By trial: some continuation of the prefix is UTF-8."""
    tails = [b"", *[bytes([last]) for last in (0x80, 0x90, 0xA0, 0xBF)]]
    tails += [tail + b"\x80" for tail in tails] + [tail + b"\x80\x80" for tail in tails]
    return any(is_text(prefix + tail) for tail in tails)


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_unfinished_character_fails_at_the_end() -> None:
    """A message that ends inside a character is no text."""
    assembly = FragmentedMessage(False, 1000)
    assembly.add(b"\xe6\xb0", False)
    with pytest.raises(ProtocolViolation) as caught:
        assembly.add(b"", True)
    assert caught.value.code == 1007


def test_binary_is_not_looked_at() -> None:
    """Anything goes in binary messages."""
    assembly = FragmentedMessage(True, 1000)
    assembly.add(b"\xff", False)
    assembly.add(b"\xfe", True)
    assert (assembly.join(), assembly.binary) == (b"\xff\xfe", True)


def test_limit_is_for_the_sum() -> None:
    """The message may be as long as the limit and no longer, however it is divided."""
    assembly = FragmentedMessage(True, 10)
    assembly.add(b"x" * 4, False)
    assembly.add(b"x" * 6, False)
    assembly.add(b"", False)
    with pytest.raises(ProtocolViolation) as caught:
        assembly.add(b"x", True)
    assert caught.value.code == 1009
