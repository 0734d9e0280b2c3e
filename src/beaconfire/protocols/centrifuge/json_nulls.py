"""Fields that are null: they count as missing, because many languages write null for what is not set.

What is a field is told by the schema and not by a name: a channel may be called `data`, too. Each message has a twin
here, whose fields may be null as well. Text is decoded into twins and encoded again without the fields that are null.
`msgspec` does both in C, in time proportional to the length of the text, however deeply that is nested: what no message
knows is skipped, and payloads are passed on as they are, since null is a value there.

An entry of a map counts as missing, too. An element of a list does not: a list with a gap is another list.
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
    """By hand, because it holds itself. Twins live for a moment and have no way back to themselves: hence no `gc`."""

    op: str | None = None
    key: str | None = None
    cmp: str | None = None
    val: str | None = None
    vals: list[str] | None = None
    nodes: list[_NullableFilterNode] | None = None


_TWINS: Final[Mapping[type[Struct], type[Struct]]] = {FilterNode: _NullableFilterNode}


@cache
def _twin(message: type[Struct]) -> type[Struct]:
    """The same fields in the same order, None by default. A payload stays what it is, because null is one."""
    if message in _TWINS:
        return _TWINS[message]
    fields = [
        (field.encode_name, field.type, field.default)
        if field.type is Raw
        else (field.encode_name, _nullable(field.type) | None, None)
        for field in msgspec.structs.fields(message)
    ]
    return msgspec.defstruct(f"_Nullable{message.__name__}", fields, omit_defaults=True, gc=False)


def _nullable(kind: Any) -> Any:
    """The type with twins instead of messages."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _twin(kind)
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return GenericAlias(dict, (key, _nullable(value) | None))
    assert get_origin(kind) is not list, "only filters have lists, and the twin of filters is written by hand"
    if NoneType in get_args(kind):
        [kind] = [option for option in get_args(kind) if option is not NoneType]
        return _nullable(kind)
    return kind


_Command: Final = msgspec.defstruct(
    "_Command",
    [("id", int | None, None), *((name, _twin(request) | None, None) for name, request in REQUESTS.items())],
    omit_defaults=True,
    gc=False,
)
_decode: Final = msgspec.json.Decoder(_Command).decode_lines
_encode: Final = msgspec.json.Encoder().encode_lines


def without_null_fields(text: bytes) -> bytes:
    """The same commands without null fields and without what no message knows. Raises what `msgspec` decoders raise."""
    commands: list[Any] = _decode(text)
    for command in commands:
        if command.connect is not None:
            _drop_null_entries(command.connect)
    return _encode(commands)


def _drop_null_entries(connect: Any) -> None:
    """Of the only message with maps in it."""
    for name in ("subs", "headers"):
        entries = getattr(connect, name)
        if entries:
            setattr(connect, name, {key: value for key, value in entries.items() if value is not None})
