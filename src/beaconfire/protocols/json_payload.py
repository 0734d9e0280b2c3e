"""Whether bytes are JSON text for certain, so that they may stand verbatim inside other JSON.

`msgspec` reads syntax, escapes and numbers strictly even in the parts it only skips, but three things are left to us.
It does not look at the UTF-8 of what it skips. How deep it can read depends on how deep the caller's stack is already,
so a payload could be accepted here and be refused, or break a subscriber, there. And it refuses `"\\ud83d"`, half of an
emoji, which every client that cuts a string in the wrong place will send, and which most languages write and read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate, count
from operator import sub
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from beaconfire.base.errors import PayloadError
from beaconfire.model.publication import NO_PAYLOAD

T = TypeVar("T")

DEPTH_MAX: Final = 512
"""Arrays and objects inside one another. Readers of the peers' languages give up from about here on (PHP at 512,
CPython at a thousand less its stack), and one publisher must not be able to break its subscribers."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BRACKETS = bytes.maketrans(b"[{]}", b"\2\2\0\0")
_STRETCH = 64
"""Brackets that are counted together, in one go, while the depth is not near the limit."""

# Skimming costs half of building the objects, and nobody here wants them.
_skim = msgspec.json.Decoder(Raw).decode


class NotJSONError(ValueError):
    """The text is not JSON, and says why."""


def read(decode: Callable[[bytes], T], text: bytes) -> T:
    """`decode(text)` of a `msgspec` JSON decoder, with the gaps above closed.

    A lone surrogate escape is read as U+FFFD, the replacement character: it has no UTF-8, so no honest reader could
    keep it, and a half emoji is no reason to end a session. Raises NotJSONError for everything else.
    """
    try:
        if not text.isascii():
            text.decode()
        try:
            value = decode(text)
        except msgspec.DecodeError:
            repaired = _replace_lone_surrogates(text)
            if repaired == text:
                raise
            value = decode(repaired)
    except UnicodeDecodeError as error:
        raise NotJSONError(f"not UTF-8 at byte {error.start}") from None
    except msgspec.DecodeError as error:
        raise NotJSONError(str(error)) from None
    except RecursionError:
        raise NotJSONError(f"nested more than {DEPTH_MAX} levels deep") from None
    # Shorter text cannot be too deep, and nearly all is shorter.
    if len(text) > DEPTH_MAX and _is_too_deep(text):
        raise NotJSONError(f"nested more than {DEPTH_MAX} levels deep")
    return value


def embeddable(data: Raw) -> Raw:
    """The payload as it may stand in a JSON message: usually `data` itself, `NO_PAYLOAD` if it is empty.

    It may still hold insignificant line breaks. Raises PayloadError if it is not JSON. Costs about 0.3 µs for a
    hundred bytes, once per message and encoding, which is less than to remember the verdict would be.
    """
    if data is NO_PAYLOAD:
        return data
    text = bytes(data)
    if not text:
        return NO_PAYLOAD
    try:
        valid = read(_skim, text)
    except NotJSONError as error:
        raise PayloadError(f"the payload is not JSON: {error}") from None
    # They differ where something was repaired, or white space stood around the text.
    return data if valid == data else valid.copy()


def _replace_lone_surrogates(text: bytes) -> bytes:
    """Same length, so that positions in error texts stay true."""
    return _ESCAPE.sub(lambda match: rb"\ufffd" if match[1] else match[0], text)


def _is_too_deep(text: bytes) -> bool:
    """Of valid JSON. Looks no closer than it must: what has few brackets cannot be deep."""
    if text.count(b"[") + text.count(b"{") <= DEPTH_MAX:
        return False
    brackets = _STRING.sub(b"", text).translate(_BRACKETS, _NOT_BRACKETS)
    depth = 0
    for start in range(0, len(brackets), _STRETCH):
        stretch = brackets[start : start + _STRETCH]
        opened = stretch.count(2)
        # An opening bracket counts as 2 and a closing one as 0, so the sum less the number of brackets is the depth.
        if depth + opened > DEPTH_MAX and depth + max(map(sub, accumulate(stretch), count(1))) > DEPTH_MAX:
            return True
        depth += 2 * opened - len(stretch)
    return False
