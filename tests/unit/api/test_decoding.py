"""Errors of requests must name the field and say what belongs there."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from beaconfire.api.decoding import RequestDecoder, UnreadableError
from beaconfire.api.requests import BatchRequest, HistoryRequest, PublishRequest, SubscribeRequest
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
def test_detail_of_a_bad_field(body: bytes, detail: str) -> None:
    """What is wrong comes with the field's name first, in JSON's words."""
    with pytest.raises(CommandError) as caught:
        publish(body)
    assert caught.value.code is BAD_REQUEST
    assert caught.value.detail == detail
    assert not isinstance(caught.value, UnreadableError)


def test_nested_fields_are_named_with_their_path() -> None:
    """The path leads through objects."""
    with pytest.raises(CommandError) as caught:
        subscribe(b'{"channel":"a","override":{"presence":{"value":1}}}')
    assert caught.value.detail == "override.presence.value: expected boolean, got integer"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "it ends too early (byte 0)"),
        (b'{"channel":"a"', "it ends too early (byte 14)"),
        (b'{"channel":"a",}', "JSON is malformed: trailing comma in object (byte 15)"),
        (b'{"channel":"\xff"}', "not UTF-8 at byte 12"),
        (b'{"channel":"a","x":"\xff"}', "not UTF-8 at byte 20"),
        (b'{"channel":"a","data":' + b"[" * 600 + b"]" * 600 + b"}", "nested more than 512 levels deep"),
    ],
)
def test_text_that_is_not_json(body: bytes, detail: str) -> None:
    """Such text is a kind of bad request of its own, which says why and where."""
    with pytest.raises(UnreadableError) as caught:
        publish(body)
    assert caught.value.detail.startswith(detail)


def test_unknown_fields_are_ignored() -> None:
    """Clients of other servers send fields we do not have."""
    assert publish(b'{"channel":"a","data":1,"label_filter":{"x":1}}').channel == "a"


def test_null_is_a_field_left_out() -> None:
    """Except for payloads, where it is JSON's null."""
    request = publish(b'{"channel":"a","data":null,"tags":null,"idempotency_key":null,"version":null}')
    assert bytes(request.data) == b"null"  # type: ignore[arg-type]  # not UNSET here
    assert (request.tags, request.idempotency_key, request.version) == ({}, "", 0)


def test_null_does_not_excuse_other_fields() -> None:
    """A null beside a wrong field leaves the wrong field wrong, and a required one missing."""
    with pytest.raises(CommandError, match="channel: expected string, got integer"):
        publish(b'{"channel":5,"tags":null}')
    with pytest.raises(CommandError, match="channel is required"):
        publish(b'{"channel":null}')


def test_optional_objects_may_be_null() -> None:
    """`since: null` is no position, not the first one."""
    assert RequestDecoder(HistoryRequest)(b'{"channel":"a","since":null}').since is None


def test_payload_text_is_kept() -> None:
    """Neither number formats nor the order of keys nor escapes may change."""
    text = b'{"b": 1.50, "a":1e2,"\\u00e9":"\\/"}'
    assert bytes(publish(b'{"channel":"a","data": ' + text + b" }").data) == text  # type: ignore[arg-type]  # as above
    assert publish(b'{"channel":"a"}').data is UNSET


def test_half_an_emoji_is_no_reason_to_fail() -> None:
    """A lone surrogate, as careless clients cut them, becomes the replacement character."""
    assert publish(b'{"channel":"a","idempotency_key":"x\\ud83d"}').idempotency_key == "x\ufffd"


def test_commands_of_a_batch_are_objects() -> None:
    """Anything else names its place in the list."""
    with pytest.raises(CommandError, match=r"commands\[1\]: expected object, got integer"):
        RequestDecoder(BatchRequest)(b'{"commands":[{},1]}')
