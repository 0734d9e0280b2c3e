"""Errors of requests name the field and say what is expected."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from beaconfire.api.decoding import InvalidJsonError, RequestDecoder
from beaconfire.api.messages.calls import BatchRequest
from beaconfire.api.messages.publishing import PublishRequest
from beaconfire.api.messages.queries import HistoryRequest
from beaconfire.api.messages.sessions import SubscribeRequest
from beaconfire.base.errors import BAD_REQUEST, CommandError

publish = RequestDecoder(PublishRequest)
subscribe = RequestDecoder(SubscribeRequest)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{}", "channel is required"),
        (b'{"channel":""}', "channel must not be empty"),
        (b'{"channel":5}', "channel: expected string, got integer"),
        (b'{"channel":"a","tags":{"k":1}}', "tags[...]: expected string, got integer"),
        (b'{"channel":"a","exclude":["x",true]}', "exclude[1]: expected string, got boolean"),
        (b'{"channel":"a","version":-1}', "version: expected integer >= 0"),
        (b'{"channel":"a","version":99999999999999999999}', "version: expected integer <= 9223372036854775807"),
        (b'{"channel":"a","skip_history":1}', "skip_history: expected boolean, got integer"),
        (b"[]", "the request: expected object, got array"),
        (b"null", "the request: expected object, got null"),
    ],
)
def test_the_detail_names_the_invalid_field(body: bytes, detail: str) -> None:
    """The field comes first, and types have their JSON names."""
    with pytest.raises(CommandError) as caught:
        publish(body)
    assert caught.value.code is BAD_REQUEST
    assert caught.value.detail == detail
    assert not isinstance(caught.value, InvalidJsonError)


def test_nested_fields_are_named_with_their_path() -> None:
    """The path leads through objects."""
    with pytest.raises(CommandError) as caught:
        subscribe(b'{"channel":"a","override":{"presence":{"value":1}}}')
    assert caught.value.detail == "override.presence.value: expected boolean, got integer"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "unexpected end at byte 0"),
        (b'{"channel":"a"', "unexpected end at byte 14"),
        (b'{"channel":"a",}', "JSON is malformed: trailing comma in object (byte 15)"),
        (b'{"channel":"\xff"}', "not UTF-8 at byte 12"),
        (b'{"channel":"a","x":"\xff"}', "not UTF-8 at byte 20"),
        (b'{"channel":"a","data":' + b"[" * 600 + b"]" * 600 + b"}", "nested more than 512 levels deep"),
    ],
)
def test_text_that_is_not_json_has_its_own_error(body: bytes, detail: str) -> None:
    """The error says why and where."""
    with pytest.raises(InvalidJsonError) as caught:
        publish(body)
    assert caught.value.detail.startswith(detail)


def test_unknown_fields_are_ignored() -> None:
    """Clients of other servers may send fields that Beaconfire does not have."""
    assert publish(b'{"channel":"a","data":1,"label_filter":{"x":1}}').channel == "a"


def test_null_counts_as_a_missing_field() -> None:
    """Except for payloads, where null is JSON's null."""
    request = publish(b'{"channel":"a","data":null,"tags":null,"idempotency_key":null,"version":null}')
    assert bytes(request.data) == b"null"  # type: ignore[arg-type]  # not UNSET here
    assert (request.tags, request.idempotency_key, request.version) == ({}, "", 0)


def test_other_errors_of_a_request_with_null_are_found() -> None:
    """An invalid field stays invalid, and a missing required field stays missing."""
    with pytest.raises(CommandError, match="channel: expected string, got integer"):
        publish(b'{"channel":5,"tags":null}')
    with pytest.raises(CommandError, match="channel is required"):
        publish(b'{"channel":null}')


def test_optional_objects_may_be_null() -> None:
    """`since: null` means no position, not the first position."""
    assert RequestDecoder(HistoryRequest)(b'{"channel":"a","since":null}').since is None


def test_payload_text_is_not_changed() -> None:
    """Number formats, the order of keys and escapes stay the same."""
    text = b'{"b": 1.50, "a":1e2,"\\u00e9":"\\/"}'
    assert bytes(publish(b'{"channel":"a","data": ' + text + b" }").data) == text  # type: ignore[arg-type]  # as above
    assert publish(b'{"channel":"a"}').data is UNSET


def test_a_lone_surrogate_is_replaced() -> None:
    """It becomes the replacement character, and the request succeeds."""
    assert publish(b'{"channel":"a","idempotency_key":"x\\ud83d"}').idempotency_key == "x\ufffd"


def test_commands_of_a_batch_are_objects() -> None:
    """The error for any other value names its index in the list."""
    with pytest.raises(CommandError, match=r"commands\[1\]: expected object, got integer"):
        RequestDecoder(BatchRequest)(b'{"commands":[{},1]}')
