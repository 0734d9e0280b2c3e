"""The client codecs and the server codecs understand each other: random messages in both directions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct
from msgspec.structs import asdict, replace

from beaconfire.base.errors import ERRORS, CommandError, ErrorCode, PayloadError
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import DisconnectPush, JoinPush, Push, RefreshPush, UnsubscribePush
from beaconfire.protocols.centrifuge.client_codec import PING, ClientCodec, Reply, ReplyError, ServerMessage
from beaconfire.protocols.centrifuge.client_json import ClientJsonCodec
from beaconfire.protocols.centrifuge.client_protobuf import ClientProtobufCodec
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec, write_varint
from beaconfire.protocols.centrifuge.requests import PONG, Command, HistoryRequest, PublishRequest, Request, SendRequest
from beaconfire.protocols.centrifuge.results import HistoryResult, PresenceResult, PublishResult, Result
from beaconfire.protocols.port import Payload, ProtocolError

from .test_round_trips import any_pushes, any_requests, any_results, quick, refs

PAIRS: list[tuple[ClientCodec, CentrifugeCodec]] = [
    (ClientJsonCodec(), JsonCodec()),
    (ClientProtobufCodec(), ProtobufCodec()),
]
both = pytest.mark.parametrize(("client", "server"), PAIRS, ids=["json", "protobuf"])


def received(client: ClientCodec, *payloads: Payload) -> list[ServerMessage]:
    """The messages that a client decodes from one frame with these payloads."""
    frame = client.separator.join(payload.data for payload in payloads)
    return [client.decode(message) for message in client.split(frame)]


def without_empty_tags(value: Any) -> Any:
    """The same message where tags that are empty are None: no encoding distinguishes the two."""
    match value:
        case Publication(tags={}):
            return replace(value, tags=value.tags or None)
        case Struct():
            return replace(value, **{name: without_empty_tags(field) for name, field in asdict(value).items()})
        case list():
            return [without_empty_tags(item) for item in value]
        case dict():
            return {key: without_empty_tags(item) for key, item in value.items()}
    return value


@both
@quick
@given(st.lists(st.tuples(refs, any_requests), min_size=1, max_size=3))
def test_server_decodes_what_the_client_encodes(
    client: ClientCodec, server: CentrifugeCodec, sent: list[tuple[int, Request]]
) -> None:
    """Several commands in one frame are decoded to equal requests with the same ids."""
    frame = client.separator.join(client.encode(number, request) for number, request in sent)
    expected = [Command(None if type(request) is SendRequest else number, request) for number, request in sent]
    assert list(server.decode(frame, client.binary)) == expected


@both
@quick
@given(st.lists(st.tuples(refs, any_results), min_size=1, max_size=3))
def test_client_decodes_every_result(
    client: ClientCodec, server: CentrifugeCodec, sent: list[tuple[int, Result]]
) -> None:
    """Several replies in one frame are decoded to equal results."""
    frame = [server.encode_reply(number, result) for number, result in sent]
    expected = [Reply(number, without_empty_tags(result)) for number, result in sent]
    assert received(client, *frame) == expected


@both
@quick
@given(st.lists(any_pushes, min_size=1, max_size=3))
def test_client_decodes_every_push(client: ClientCodec, server: CentrifugeCodec, sent: list[Push]) -> None:
    """Several pushes in one frame are decoded to equal pushes."""
    found = received(client, *map(server.encode_push, sent))
    assert found == [without_empty_tags(push) for push in sent]
    assert [type(push) for push in found] == [type(push) for push in sent]


@both
@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.message)
def test_client_decodes_every_error(client: ClientCodec, server: CentrifugeCodec, code: ErrorCode) -> None:
    """Code, message and whether the error is temporary."""
    [reply] = received(client, server.encode_error(5, CommandError(code), ""))
    assert reply == Reply(5, ReplyError(code.code, code.message, code.temporary))


@both
def test_ping_and_pong(client: ClientCodec, server: CentrifugeCodec) -> None:
    """Both are empty messages, alone in a frame or among others."""
    reply = server.encode_reply(1, PublishResult())
    assert received(client, server.encode_ping(), reply, server.encode_ping()) == [
        PING,
        Reply(1, PublishResult()),
        PING,
    ]
    assert [command.request for command in server.decode(client.pong, client.binary)] == [PONG]


@both
@pytest.mark.parametrize("garbage", [b"hello", b"\xff\xff\xff", b"\x03\xff\xff\xff", b"[]", b"\x7f"])
def test_garbage_is_refused(client: ClientCodec, server: CentrifugeCodec, garbage: bytes) -> None:
    """Bytes that are not a message of this protocol raise ProtocolError."""
    with pytest.raises(ProtocolError):
        [client.decode(message) for message in client.split(garbage)]


@pytest.mark.parametrize("sizes", [[0, 1, 0], [127, 128, 129], [16_383, 16_384], [2**21 - 1, 2**21, 3]])
def test_protobuf_frames_are_split(sizes: list[int]) -> None:
    """Lengths of one to four bytes. A frame that ends within a length or a message is refused."""
    messages = [bytes([index]) * size for index, size in enumerate(sizes)]
    frame = b"".join(write_varint(len(message)) + message for message in messages)
    split = ClientProtobufCodec().split
    assert split(frame) == messages
    for cut_off in (b"\xff", write_varint(9) + b"8 bytes.", write_varint(300) + b"short"):
        with pytest.raises(ProtocolError):
            split(frame + cut_off)
    with pytest.raises(ProtocolError, match="longer than 5 bytes"):
        split(b"\x80" * 6)


def test_missing_and_null_fields_of_json_are_zero() -> None:
    """Servers leave out zero values, and servers written in Go write an empty list or map as null."""
    decode = ClientJsonCodec().decode
    assert decode(b'{"id":1,"history":{"publications":null,"epoch":"e"}}') == Reply(1, HistoryResult([], "e", 0))
    assert decode(b'{"id":1,"presence":{"presence":null}}') == Reply(1, PresenceResult({}))
    assert decode(b'{"push":{"channel":"c","unsubscribe":{}}}') == UnsubscribePush("c", 0, "")
    assert decode(b'{"push":{"channel":"c","join":{}}}') == JoinPush("c", ClientInfo("", ""))
    assert decode(b'{"push":{"disconnect":{"code":3001}}}') == DisconnectPush(3001, "", False)
    assert decode(b'{"push":{"refresh":{}}}') == RefreshPush(False, 0)


def test_newer_servers() -> None:
    """Unknown fields are skipped and unknown pushes are None; a reply without a known result is an error."""
    decode = ClientJsonCodec().decode
    assert decode(b'{"id":1,"new":{},"publish":{"new":1}}') == Reply(1, PublishResult())
    assert decode(b'{"push":{"channel":"c","new":{"x":1}}}') is None
    with pytest.raises(ProtocolError, match="reply 1 holds no known result"):
        decode(b'{"id":1,"new":{}}')
    protobuf = ClientProtobufCodec().decode
    assert protobuf(b"\x22\x03\x12\x01c") is None
    with pytest.raises(ProtocolError, match="reply 1 holds no known result"):
        protobuf(b"\x08\x01")


def test_json_commands_are_one_line() -> None:
    """A line break in a payload becomes a space, because line breaks separate commands."""
    assert b"\n" not in ClientJsonCodec().encode(1, PublishRequest("c", Raw(b'{\n"a": 1\r\n}')))


def test_half_an_emoji_is_accepted() -> None:
    """A server may pass on a payload with a lone surrogate; it becomes U+FFFD, as on the server."""
    push = ClientJsonCodec().decode(rb'{"push":{"channel":"c","pub":{"data":"\ud83d"}}}')
    assert getattr(push, "pub", None) == Publication(Raw(rb'"\ufffd"'))


def test_text_that_is_not_unicode_cannot_be_encoded_in_protobuf() -> None:
    """A lone surrogate in a channel name raises PayloadError, which names the reason."""
    for request in (PublishRequest("\ud800"), HistoryRequest("\ud800")):
        with pytest.raises(PayloadError, match="surrogates not allowed"):
            ClientProtobufCodec().encode(1, request)
