"""What the load test says is what the server's codecs understand, and the other way round."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from beaconfire.base.errors import PERMISSION_DENIED, UNSUBSCRIBED_INSUFFICIENT, CommandError
from beaconfire.loadtest.dialect import MARK, Dialect, FormatError, Told, dialect, mark
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush, UnsubscribePush
from beaconfire.model.requests import ConnectRequest, PublishRequest, SubscribeRequest
from beaconfire.model.results import ConnectResult, PublishResult
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.port import Codec

PAIRS = [(dialect(protobuf=False), JsonCodec()), (dialect(protobuf=True), ProtobufCodec())]
both = pytest.mark.parametrize(("spoken", "codec"), PAIRS, ids=["json", "protobuf"])


@pytest.mark.parametrize("size", [64, 128, 1000])
def test_marks(size: int) -> None:
    """JSON of exactly the size that was asked for, even with the longest numbers, and found again."""
    data = mark(2**63, 10**12, size)
    assert len(data) == size
    assert json.loads(data)["t"] == 2**63
    found = MARK.search(b"...." + data)
    assert found is not None
    assert (int(found[1]), int(found[2])) == (2**63, 10**12)


@both
def test_commands(spoken: Dialect, codec: Codec) -> None:
    """Names are quoted where the encoding needs it, payloads stay as they are."""
    name, data = 'a "channel"', mark(1, 2, 300)
    (connect,) = codec.decode(spoken.connect(1, "tok.en"), spoken.binary)
    assert isinstance(connect.request, ConnectRequest)
    assert connect.request.token == "tok.en"
    (subscribe,) = codec.decode(spoken.subscribe(2, name), spoken.binary)
    assert isinstance(subscribe.request, SubscribeRequest)
    assert subscribe.request.channel == name
    (publish,) = codec.decode(spoken.publish(3, name, data), spoken.binary)
    assert isinstance(publish.request, PublishRequest)
    assert (publish.ref, publish.request.channel, bytes(publish.request.data)) == (3, name, data)


@both
def test_replies(spoken: Dialect, codec: Codec) -> None:
    """Answers, errors, the end of a subscription, pings; a publication carries its mark as it was."""
    assert spoken.read(codec_bytes(codec, codec.encode_reply(7, PublishResult()).data)).id == 7
    connected = codec.encode_reply(1, ConnectResult(client="c", version="v", ping=25, pong=True)).data
    assert spoken.read(codec_bytes(codec, connected)).pong
    refused = spoken.read(codec_bytes(codec, codec.encode_error(2, CommandError(PERMISSION_DENIED), "").data))
    assert (refused.id, refused.error) == (2, Told(103, "permission denied"))
    push = UnsubscribePush("c", UNSUBSCRIBED_INSUFFICIENT.code, UNSUBSCRIBED_INSUFFICIENT.reason)
    assert spoken.read(codec_bytes(codec, codec.encode_push(push).data)).unsubscribed == Told(2500, push.reason)
    assert spoken.read(codec_bytes(codec, codec.encode_ping().data)).is_ping
    publication = codec.encode_push(PublicationPush("c", Publication(Raw(mark(11, 12, 64))))).data
    assert MARK.search(codec_bytes(codec, publication)) is not None


@both
def test_frames_of_several_messages(spoken: Dialect, codec: Codec) -> None:
    """They come apart as they were put together."""
    messages = [codec.encode_reply(number, PublishResult()).data for number in (1, 200, 3)]
    assert codec.separator is not None
    parts = list(spoken.split(codec.separator.join(messages)))
    assert [spoken.read(part).id for part in parts] == [1, 200, 3]


@both
def test_garbage(spoken: Dialect, codec: Codec) -> None:
    """Something else than the protocol is noticed."""
    for garbage in (b"hello", b"\xff\xff\xff", b"\x03\xff\xff\xff"):
        with pytest.raises(FormatError):
            [spoken.read(message) for message in spoken.split(garbage)]


def codec_bytes(codec: Codec, data: bytes) -> bytes:
    """A message without what goes before it in a frame."""
    spoken = dialect(protobuf=codec.name == "centrifuge-protobuf")
    (message,) = spoken.split(data)
    return message
