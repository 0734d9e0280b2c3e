"""Null in every field of every request, and the cost of removing nulls."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from types import FrameType, NoneType
from typing import Any, get_args, get_origin

import msgspec
import pytest
from msgspec import Raw, Struct

from beaconfire.model.requests import FilterNode
from beaconfire.protocols.centrifuge.fields import REQUESTS
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.requests import Command, ConnectRequest, PublishRequest, SubscribeRequest
from beaconfire.protocols.port import ProtocolError

FRAME_SIZE = 64 * 1024


def decode(request: object) -> list[Command]:
    return list(JsonCodec().decode(request if isinstance(request, bytes) else json.dumps(request).encode(), False))


def with_one_field(message: type[Struct], depth: int = 0) -> Iterator[tuple[str, bool, dict[str, Any]]]:
    """For each field of a message: its path, whether it is a payload, and JSON in which only this field is null.
    Includes nested messages.
    """
    for field in msgspec.structs.fields(message):
        name, kind = field.encode_name, field.type
        yield name, kind is Raw, {name: None}
        [kind] = (
            [option for option in get_args(kind) if option is not NoneType] if NoneType in get_args(kind) else [kind]
        )
        inner = get_args(kind)[-1] if get_origin(kind) in (list, dict) else kind
        if isinstance(inner, type) and issubclass(inner, Struct) and depth < 3:
            for path, is_payload, value in with_one_field(inner, depth + 1):
                wrapped: Any = (
                    [value] if get_origin(kind) is list else {"data": value} if get_origin(kind) is dict else value
                )
                yield f"{name}.{path}", is_payload, {name: wrapped}
        elif get_origin(kind) is dict:
            yield f"{name}.data", False, {name: {"data": None}}


FIELDS = [
    (f"{name}.{path}", is_payload, {name: value})
    for name, request in REQUESTS.items()
    for path, is_payload, value in with_one_field(request)
    if (name, path) != ("connect", "user")  # Not a field of this protocol.
]


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("path", "is_payload", "request_"), FIELDS, ids=[path for path, _, _ in FIELDS])
def test_null_counts_as_missing_except_in_payloads(path: str, is_payload: bool, request_: dict[str, Any]) -> None:
    """The position in the schema decides: in lists, in maps, and in a channel or header with the name `data`."""
    [given] = decode({"id": 1, **request_})
    [missing] = decode({"id": 1, **without_nulls(request_)})
    if is_payload:
        assert given != missing
        assert b'"data":null' in msgspec.json.encode(given.request)
    else:
        assert given == missing


def test_the_examples_include_nested_fields() -> None:
    """Otherwise the test above would prove little."""
    paths = {path for path, _, _ in FIELDS}
    assert {"connect.subs.data", "connect.subs.tf.nodes.vals", "connect.headers.data", "history.since.epoch"} <= paths


def test_a_channel_may_have_the_name_data() -> None:
    """Its entry is treated like any other, and a null payload in it is kept."""
    entry = {"epoch": None, "data": None, "tf": {"op": "and", "nodes": [{"key": "a", "cmp": "ex", "vals": None}]}}
    [command] = decode({"id": 1, "connect": {"data": None, "subs": {"data": entry, "news": entry, "gone": None}}})
    expected = SubscribeRequest(data=Raw(b"null"), tf=FilterNode(op="and", nodes=[FilterNode(key="a", cmp="ex")]))
    assert command.request == ConnectRequest(data=Raw(b"null"), subs={"data": expected, "news": expected})


def test_nulls_in_unknown_fields_are_ignored() -> None:
    """Whatever the names of nested fields are."""
    [command] = decode(
        {"id": 1, "new": None, "publish": {"channel": None, "data": {"data": None}, "x": {"data": [None]}}}
    )
    assert command.request == PublishRequest(data=Raw(b'{"data": null}'))


@pytest.mark.parametrize(
    "request_",
    [
        {"subscribe": {"channel": "a", "tf": {"vals": [None]}}},
        {"subscribe": {"channel": "a", "tf": {"nodes": [None]}}},
        {"subscribe": [None]},
    ],
)
def test_null_as_element_of_a_list_is_rejected(request_: dict[str, Any]) -> None:
    """Without the element, the other elements would change their positions."""
    with pytest.raises(ProtocolError, match="null"):
        decode({"id": 1, **request_})


def count_calls(frame: bytes) -> int:
    """The number of Python functions called while a frame is decoded: the work outside of `msgspec`."""
    entered = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal entered
        entered += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        decode(frame)
    finally:
        sys.setprofile(before)
    return entered


def nested(levels: int, known: bool) -> bytes:
    """A frame of fixed size with a null at its deepest level, inside a known or an unknown field."""
    head, tail = (b'{"id":1,"subscribe":{"tf":', b"}}") if known else (b'{"id":1,"publish":{"x":', b',"channel":null}}')
    opening, closing = (b'{"nodes":[', b"]}") if known else (b'{"a":', b"}")
    bottom = b'{"key":null,"val":"%b"}'
    body = head + opening * levels + bottom + closing * levels + tail
    return body.replace(b"%b", b"x" * (FRAME_SIZE - len(body)))


@pytest.mark.parametrize("known", [True, False])
def test_the_cost_of_nulls_does_not_depend_on_nesting(known: bool) -> None:
    """A frame with a null that is nested nearly as deeply as allowed needs as many calls as a flat frame.

    The tolerance is for calls of the garbage collector; copying at each level would need 50 times as many calls.
    """
    assert count_calls(nested(240 if known else 490, known)) < 2 * count_calls(nested(1, known))
