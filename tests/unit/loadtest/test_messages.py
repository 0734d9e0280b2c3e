"""The shortcuts of the load test give the same results as the shared codecs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.loadtest.messages import DATA, JSON, PROTOBUF, Encoding, encode_data
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush, Push
from beaconfire.protocols.centrifuge.client_codec import Reply
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.centrifuge.requests import PublishRequest
from beaconfire.protocols.centrifuge.results import PublishResult, Result
from tests.conformance.codecs.test_round_trips import any_pushes, any_results, publications, quick, refs, texts

SERVER_CODECS: dict[str, CentrifugeCodec] = {"centrifuge-json": JsonCodec(), "centrifuge-protobuf": ProtobufCodec()}
both = pytest.mark.parametrize("encoding", [JSON, PROTOBUF], ids=["json", "protobuf"])

times_ns = st.integers(0, 2**63)
numbers = st.integers(0, 10**12)


def only_message(encoding: Encoding, frame: bytes) -> bytes:
    [message] = encoding.codec.split(frame)
    return message


@pytest.mark.parametrize("size", [64, 128, 1000])
def test_data_has_the_requested_size(size: int) -> None:
    """Valid JSON of exactly this size, also with the largest numbers. The pattern finds time and number."""
    data = encode_data(2**63, 10**12, size)
    assert len(data) == size
    assert json.loads(data)["t"] == 2**63
    found = DATA.search(b"...." + data)
    assert found is not None
    assert (int(found[1]), int(found[2])) == (2**63, 10**12)


@both
@quick
@given(refs, texts, times_ns, numbers)
def test_publish_command_is_what_the_codec_encodes(
    encoding: Encoding, number: int, channel: str, due_ns: int, message: int
) -> None:
    """The shortcut and the codec encode the same bytes."""
    data = encode_data(due_ns, message, 300)
    expected = encoding.codec.encode(number, PublishRequest(channel, Raw(data)))
    if channel:
        assert encoding.encode_publish(number, channel, data) == expected
    server = SERVER_CODECS[encoding.codec.name]
    assert list(server.decode(encoding.encode_publish(number, channel, data), encoding.codec.binary)) == list(
        server.decode(expected, encoding.codec.binary)
    )


@both
@quick
@given(publications, texts, times_ns, numbers)
def test_data_is_found_in_an_encoded_push(
    encoding: Encoding, publication: Publication, channel: str, due_ns: int, message: int
) -> None:
    """The pattern finds in the encoded push what the codec decodes, with any other fields beside the data."""
    data = encode_data(due_ns, message, 200)
    push = PublicationPush(channel, Publication(Raw(data), publication.info, publication.offset, publication.tags))
    encoded = only_message(encoding, SERVER_CODECS[encoding.codec.name].encode_push(push).data)
    found = DATA.search(encoded)
    assert found is not None
    decoded = encoding.codec.decode(encoded)
    assert isinstance(decoded, PublicationPush)
    fields = json.loads(bytes(decoded.pub.data))
    assert (int(found[1]), int(found[2])) == (fields["t"], fields["n"]) == (due_ns, message)


@both
@quick
@given(refs, any_results)
def test_only_publish_results_match(encoding: Encoding, number: int, result: Result) -> None:
    """The pattern matches an encoded reply if and only if the codec decodes it to a publish result."""
    encoded = only_message(encoding, SERVER_CODECS[encoding.codec.name].encode_reply(number, result).data)
    decoded = encoding.codec.decode(encoded)
    assert isinstance(decoded, Reply)
    assert bool(encoding.publish_succeeded.fullmatch(encoded)) == (type(decoded.result) is PublishResult)


@both
@quick
@given(any_pushes)
def test_no_push_matches(encoding: Encoding, push: Push) -> None:
    """The pattern for publish results never matches an encoded push."""
    encoded = only_message(encoding, SERVER_CODECS[encoding.codec.name].encode_push(push).data)
    assert encoding.publish_succeeded.fullmatch(encoded) is None


@both
@quick
@given(st.binary(max_size=9) | st.builds(lambda head, tail: head + tail, st.binary(max_size=7), st.just(b"\x42\x00")))
def test_random_bytes_match_only_if_they_are_a_publish_result(encoding: Encoding, message: bytes) -> None:
    """Bytes that match are decoded to a publish result."""
    if encoding.publish_succeeded.fullmatch(message):
        decoded = encoding.codec.decode(message)
        assert isinstance(decoded, Reply)
        assert type(decoded.result) is PublishResult
