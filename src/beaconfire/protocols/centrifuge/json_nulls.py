"""Removes fields that are null from commands. Many languages write null for a field that is not set.

The schema decides what a field is, not the name: a channel may be called `data`. Each message has a nullable variant
here, whose fields may also be null. The text is decoded with these variants and encoded again without the null fields.
`msgspec` does both in C, in time proportional to the length of the text and independent of its nesting. Unknown fields
are dropped. Payloads stay unchanged, because null is a value there.

A null entry of a map also counts as missing. A null element of a list does not, because the other elements would change
their positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import GenericAlias, NoneType
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

from beaconfire.model.requests import FilterNode
from beaconfire.protocols.centrifuge.fields import REQUESTS


class _NullableFilterNode(Struct, omit_defaults=True, gc=False):
    """Written by hand, because the type is recursive. `gc=False`: the objects live only during decoding and are never
    part of a reference cycle."""

    op: str | None = None
    key: str | None = None
    cmp: str | None = None
    val: str | None = None
    vals: list[str] | None = None
    nodes: list[_NullableFilterNode] | None = None


_NULLABLE_STRUCTS: Final[Mapping[type[Struct], type[Struct]]] = {FilterNode: _NullableFilterNode}


@cache
def _nullable_struct(message: type[Struct]) -> type[Struct]:
    """The nullable variant of a message: the same fields in the same order, None by default. Payload fields do not
    change, because null is a valid payload."""
    if message in _NULLABLE_STRUCTS:
        return _NULLABLE_STRUCTS[message]
    fields = [
        (field.encode_name, field.type, field.default)
        if field.type is Raw
        else (field.encode_name, _nullable_type(field.type) | None, None)
        for field in msgspec.structs.fields(message)
    ]
    return msgspec.defstruct(f"_Nullable{message.__name__}", fields, omit_defaults=True, gc=False)


def _nullable_type(kind: Any) -> Any:
    """The type with nullable variants instead of messages."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _nullable_struct(kind)
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return GenericAlias(dict, (key, _nullable_type(value) | None))
    assert get_origin(kind) is not list, "only tags filters have lists, and their nullable variant is written by hand"
    if NoneType in get_args(kind):
        [kind] = [option for option in get_args(kind) if option is not NoneType]
        return _nullable_type(kind)
    return kind


_Command: Final = msgspec.defstruct(
    "_Command",
    [("id", int | None, None), *((name, _nullable_struct(request) | None, None) for name, request in REQUESTS.items())],
    omit_defaults=True,
    gc=False,
)
_decode: Final = msgspec.json.Decoder(_Command).decode_lines
_encode: Final = msgspec.json.Encoder().encode_lines


def without_null_fields(text: bytes) -> bytes:
    """The same commands without null fields and without unknown fields. Raises the exceptions of `msgspec` decoders."""
    commands: list[Any] = _decode(text)
    for command in commands:
        if command.connect is not None:
            _drop_null_entries(command.connect)
    return _encode(commands)


def _drop_null_entries(connect: Any) -> None:
    """Removes null entries of maps. Only the connect request has maps."""
    for name in ("subs", "headers"):
        entries = getattr(connect, name)
        if entries:
            setattr(connect, name, {key: value for key, value in entries.items() if value is not None})
