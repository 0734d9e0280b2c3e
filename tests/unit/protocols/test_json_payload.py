"""What may stand inside other JSON."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from beaconfire.base.errors import PayloadError
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.protocols.json_payload import DEPTH_MAX, NotJSONError, embeddable, read

decode = msgspec.json.Decoder(Raw).decode


@pytest.mark.parametrize(
    "text",
    ["null", "0", "-1.50e+07", '""', '"\\u00e9\\ud83d\\ude00"', '"烽火"', "[]", '{"a" : [1, {"b":null}]}', "[1,\n 2]"],
)
def test_json_is_kept_as_it_is(text: str) -> None:
    """Valid text is the very same object: not a digit, a space or an escape of it changes."""
    data = Raw(text.encode())
    assert embeddable(data) is data


def test_white_space_around_is_dropped() -> None:
    """What stands outside of the value is no part of it."""
    assert bytes(embeddable(Raw(b'\n {"a":1}\r\n'))) == b'{"a":1}'


def test_empty_is_no_payload() -> None:
    """Encoders leave out the one empty payload only, so every other one becomes it."""
    assert embeddable(NO_PAYLOAD) is NO_PAYLOAD
    assert embeddable(Raw(b"")) is NO_PAYLOAD


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b" ", "truncated"),
        (b"hello", "invalid"),
        (b'1},"channel":"b","x":{"a":2', "trailing"),
        (b"1 2", "trailing"),
        (b"NaN", "invalid"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b'{"\xff":1}', "not UTF-8 at byte 2"),
        (b'"a\nb"', "invalid"),
        (b"\xef\xbb\xbf1", "invalid"),
    ],
)
def test_everything_else_is_refused(text: bytes, says: str) -> None:
    """Nothing that could end the payload early, or that a peer could not read, gets through."""
    with pytest.raises(PayloadError, match=says):
        embeddable(Raw(text))


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (r'"\ud83d"', r'"\ufffd"'),
        (r'"\uDE00"', r'"\ufffd"'),
        (r'"\ud83dx\ud83d\ude00"', r'"\ufffdx\ud83d\ude00"'),
        (r'"\ud83d\ud83d\ude00"', r'"\ufffd\ud83d\ude00"'),
        (r'"\ude00\ud83d"', r'"\ufffd\ufffd"'),
        (r'"\ud83d\u0041"', r'"\ufffd\u0041"'),
        (r'["\\ud83d", "\ud83d"]', r'["\\ud83d", "\ufffd"]'),
        (r'{"\ud83d":"é"}', r'{"\ufffd":"é"}'),
    ],
)
def test_half_an_emoji_is_replaced(text: str, repaired: str) -> None:
    """A lone surrogate has no UTF-8: it becomes the replacement character, and whole pairs stay."""
    assert bytes(embeddable(Raw(text.encode()))).decode() == repaired


def test_an_escaped_backslash_is_no_escape() -> None:
    """Text that only looks like a surrogate is not touched."""
    data = Raw(rb'"\\ud83d"')
    assert embeddable(data) is data


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_depth_has_a_limit() -> None:
    """The deepest text allowed is read, one level more is not."""
    assert read(decode, nested(DEPTH_MAX)) == Raw(nested(DEPTH_MAX))
    with pytest.raises(NotJSONError, match="more than 512 levels"):
        read(decode, nested(DEPTH_MAX + 1))


@pytest.mark.parametrize("before", [b"", b"[]," * 2000, b"[[]]," * 1999 + b'"]",', nested(DEPTH_MAX - 1) + b","])
@pytest.mark.parametrize("after", [b"", b",[]" * 2000])
def test_depth_is_found_wherever_it_is(before: bytes, after: bytes) -> None:
    """Behind any number of brackets, at any place among those that are counted together."""
    for offset in (0, 1, 31, 32, 63):
        shift = b"[]," * offset
        fits, too_deep = (b"[" + shift + before + nested(depth) + after + b"]" for depth in (DEPTH_MAX - 1, DEPTH_MAX))
        assert read(decode, fits) == Raw(fits)
        with pytest.raises(NotJSONError, match="more than 512 levels"):
            read(decode, too_deep)


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b",".join([b"[]"] * 2000) + b"]",
        b"[" + b",".join([b'{"a":[1]}'] * 2000) + b"]",
        b'"' + b"[" * 2000 + b'"',
        b'["\\"' + b"[{" * 2000 + b'\\\\"]',
    ],
    ids=["many arrays", "many objects", "brackets in a string", "brackets after an escaped quote"],
)
def test_width_has_no_limit(text: bytes) -> None:
    """Only brackets inside one another count, and only outside of strings."""
    assert read(decode, text) == Raw(text)
