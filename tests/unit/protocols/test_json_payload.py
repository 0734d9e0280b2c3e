"""Which payloads can be embedded in other JSON."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from beaconfire.base.errors import PayloadError
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.protocols.json_payload import DEPTH_MAX, NotJSONError, check_json, decode_json

decode = msgspec.json.Decoder(Raw).decode


@pytest.mark.parametrize(
    "text",
    ["null", "0", "-1.50e+07", '""', '"\\u00e9\\ud83d\\ude00"', '"烽火"', "[]", '{"a" : [1, {"b":null}]}', "[1,\n 2]"],
)
def test_valid_json_is_not_changed(text: str) -> None:
    """The result is the same object: digits, spaces and escapes do not change."""
    data = Raw(text.encode())
    assert check_json(data) is data


def test_surrounding_white_space_is_dropped() -> None:
    """White space outside of the value is not part of it."""
    assert bytes(check_json(Raw(b'\n {"a":1}\r\n'))) == b'{"a":1}'


def test_an_empty_payload_becomes_the_empty_payload() -> None:
    """Encoders omit only the object `NO_PAYLOAD`, so all empty payloads become this object."""
    assert check_json(NO_PAYLOAD) is NO_PAYLOAD
    assert check_json(Raw(b"")) is NO_PAYLOAD


@pytest.mark.parametrize(
    ("text", "error"),
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
def test_invalid_json_is_rejected(text: bytes, error: str) -> None:
    """Text that ends the payload early, or that a client could not decode, is rejected."""
    with pytest.raises(PayloadError, match=error):
        check_json(Raw(text))


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
def test_a_lone_surrogate_is_replaced(text: str, repaired: str) -> None:
    """A lone surrogate has no UTF-8 form and becomes the replacement character. Complete pairs do not change."""
    assert bytes(check_json(Raw(text.encode()))).decode() == repaired


def test_an_escaped_backslash_is_not_part_of_an_escape() -> None:
    """Text that only looks like a surrogate escape does not change."""
    data = Raw(rb'"\\ud83d"')
    assert check_json(data) is data


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_nesting_has_a_limit() -> None:
    """The deepest allowed text is decoded; one more level is rejected."""
    assert decode_json(decode, nested(DEPTH_MAX)) == Raw(nested(DEPTH_MAX))
    with pytest.raises(NotJSONError, match="more than 512 levels"):
        decode_json(decode, nested(DEPTH_MAX + 1))


@pytest.mark.parametrize("before", [b"", b"[]," * 2000, b"[[]]," * 1999 + b'"]",', nested(DEPTH_MAX - 1) + b","])
@pytest.mark.parametrize("after", [b"", b",[]" * 2000])
def test_nesting_is_found_at_any_position(before: bytes, after: bytes) -> None:
    """After any number of brackets, and at any position among the brackets that are counted in one step."""
    for offset in (0, 1, 31, 32, 63):
        shift = b"[]," * offset
        fits, too_deep = (b"[" + shift + before + nested(depth) + after + b"]" for depth in (DEPTH_MAX - 1, DEPTH_MAX))
        assert decode_json(decode, fits) == Raw(fits)
        with pytest.raises(NotJSONError, match="more than 512 levels"):
            decode_json(decode, too_deep)


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
def test_the_number_of_brackets_has_no_limit(text: bytes) -> None:
    """Only nested brackets count, and only outside of strings."""
    assert decode_json(decode, text) == Raw(text)
