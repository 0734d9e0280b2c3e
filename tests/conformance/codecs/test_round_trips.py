"""Random messages through our codecs and the module of the official SDK agree."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct

from beaconfire.model import position, publication, pushes
from beaconfire.model.requests import FilterNode
from beaconfire.protocols.centrifuge import requests, results
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec
from beaconfire.protocols.centrifuge.fields import PUSHES, REQUESTS, RESULTS
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec

from . import official

JSON: CentrifugeCodec = JsonCodec()
PROTOBUF: CentrifugeCodec = ProtobufCodec()
quick = settings(max_examples=400, deadline=None, derandomize=True, database=None)

texts = st.text(max_size=12)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
refs = st.integers(1, 2**32 - 1)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
payloads = st.just(publication.NO_PAYLOAD) | values.map(lambda value: Raw(official.compact(value).encode()))
infos = st.builds(publication.ClientInfo, user=texts, client=texts, conn_info=payloads, chan_info=payloads)
publications = st.builds(
    publication.Publication,
    data=payloads,
    info=st.none() | infos,
    offset=u64,
    tags=st.none() | st.dictionaries(texts, texts, max_size=3),
    delta=st.booleans(),
)
subscribed = st.builds(
    results.SubscribeResult,
    expires=st.booleans(),
    ttl=u32,
    recoverable=st.booleans(),
    epoch=texts,
    publications=st.lists(publications, max_size=3),
    recovered=st.booleans(),
    offset=u64,
    positioned=st.booleans(),
    data=payloads,
    was_recovering=st.booleans(),
    delta=st.booleans(),
)
connected = st.builds(
    results.ConnectResult,
    client=texts,
    version=texts,
    expires=st.booleans(),
    ttl=u32,
    data=payloads,
    subs=st.dictionaries(texts, subscribed, max_size=2),
    ping=u32,
    pong=st.booleans(),
    session=texts,
    node=texts,
    time=st.integers(0, 2**62),
)
any_results = st.one_of(
    connected,
    subscribed,
    st.builds(results.UnsubscribeResult),
    st.builds(results.PublishResult),
    st.builds(results.PresenceResult, presence=st.dictionaries(texts, infos, max_size=3)),
    st.builds(results.PresenceStatsResult, num_clients=u32, num_users=u32),
    st.builds(results.HistoryResult, publications=st.lists(publications, max_size=3), epoch=texts, offset=u64),
    st.builds(results.PingResult),
    st.builds(results.RPCResult, data=payloads),
    st.builds(results.RefreshResult, client=texts, version=texts, expires=st.booleans(), ttl=u32),
    st.builds(results.SubRefreshResult, expires=st.booleans(), ttl=u32),
)
any_pushes = st.one_of(
    st.builds(pushes.PublicationPush, channel=texts, pub=publications),
    st.builds(pushes.JoinPush, channel=texts, info=infos),
    st.builds(pushes.LeavePush, channel=texts, info=infos),
    st.builds(pushes.UnsubscribePush, channel=texts, code=u32, reason=texts),
    st.builds(
        pushes.SubscribePush,
        channel=texts,
        recoverable=st.booleans(),
        epoch=texts,
        offset=u64,
        positioned=st.booleans(),
        data=payloads,
    ),
    st.builds(pushes.MessagePush, data=payloads),
    st.builds(pushes.RefreshPush, expires=st.booleans(), ttl=u32),
    st.builds(pushes.DisconnectPush, code=u32, reason=texts, reconnect=st.booleans()),
)
filters = st.recursive(
    st.builds(FilterNode, key=texts, cmp=texts, val=texts, vals=st.lists(texts, max_size=2)),
    lambda inner: st.builds(FilterNode, op=texts, nodes=st.lists(inner, max_size=3)),
    max_leaves=5,
)
# Without `type`: the module of the SDK does not know this field yet.
subscribes = st.builds(
    requests.SubscribeRequest,
    channel=texts,
    token=texts,
    recover=st.booleans(),
    epoch=texts,
    offset=u64,
    data=payloads,
    positioned=st.booleans(),
    recoverable=st.booleans(),
    join_leave=st.booleans(),
    delta=texts,
    tf=st.none() | filters,
    flag=st.integers(-(2**63), 2**63 - 1),
)
any_requests = st.one_of(
    st.builds(
        requests.ConnectRequest,
        token=texts,
        data=payloads,
        subs=st.dictionaries(texts, subscribes, max_size=2),
        name=texts,
        version=texts,
        headers=st.dictionaries(texts, texts, max_size=2),
    ),
    subscribes,
    st.builds(requests.UnsubscribeRequest, channel=texts),
    st.builds(requests.PublishRequest, channel=texts, data=payloads),
    st.builds(requests.PresenceRequest, channel=texts),
    st.builds(requests.PresenceStatsRequest, channel=texts),
    st.builds(
        requests.HistoryRequest,
        channel=texts,
        limit=st.integers(-(2**31), 2**31 - 1),
        since=st.none() | st.builds(position.SincePosition, offset=u64, epoch=texts),
        reverse=st.booleans(),
    ),
    st.builds(requests.PingRequest),
    st.builds(requests.SendRequest, data=payloads),
    st.builds(requests.RPCRequest, data=payloads, method=texts),
    st.builds(requests.RefreshRequest, token=texts),
    st.builds(requests.SubRefreshRequest, channel=texts, token=texts),
)


def assert_same(ours: Struct, theirs: Any, hidden: tuple[str, ...] = ()) -> None:
    """Every field of our message is in the official message.

    The module of the SDK does not know tickets, an addition of Beaconfire; the vectors have them.
    """
    for name in ours.__struct_fields__:
        if name not in (*hidden, "ticket", "want_tickets"):
            assert_same_value(getattr(ours, name), getattr(theirs, name))


def assert_same_value(mine: Any, other: Any) -> None:
    if mine is None:
        assert not other or other == type(other)()
    elif isinstance(mine, Raw):
        assert bytes(mine) == other
    elif isinstance(mine, Struct):
        # The module of the SDK knows neither `conflated` (an addition of Beaconfire) nor `epoch`; the vectors do.
        assert_same(mine, other, hidden=("epoch", "conflated") if isinstance(mine, publication.Publication) else ())
    elif isinstance(mine, dict):
        assert set(mine) == set(other)
        for key, item in mine.items():
            assert_same_value(item, other[key])
    elif isinstance(mine, list):
        assert len(mine) == len(other)
        for item, its in zip(mine, other, strict=True):
            assert_same_value(item, its)
    else:
        assert mine == other


@quick
@given(refs, any_results)
def test_results_agree_with_the_sdk(ref: int, result: results.Result) -> None:
    """The SDK decodes the same result from Protobuf and from JSON, and the JSON is one line."""
    reply: Any = official.reply_from_protobuf(PROTOBUF.encode_reply(ref, result).data)
    assert reply.id == ref
    assert reply.HasField(RESULTS[type(result)])
    assert_same(result, getattr(reply, RESULTS[type(result)]))
    line = JSON.encode_reply(ref, result).data
    assert b"\n" not in line
    assert official.reply_from_json(line.decode()) == reply


@quick
@given(any_pushes)
def test_pushes_agree_with_the_sdk(push: pushes.Push) -> None:
    """The SDK decodes the same push from Protobuf and from JSON, and the JSON is one line."""
    reply: Any = official.reply_from_protobuf(PROTOBUF.encode_push(push).data)
    name = PUSHES[type(push)]
    assert reply.push.HasField(name)
    if isinstance(push, pushes.PublicationPush):
        assert_same(push, reply.push)
    else:
        assert reply.push.channel == getattr(push, "channel", "")
        assert_same(push, getattr(reply.push, name), ("channel",))
    line = JSON.encode_push(push).data
    assert b"\n" not in line
    assert official.reply_from_json(line.decode()) == reply


@quick
@given(st.lists(st.tuples(refs, any_requests), min_size=1, max_size=3))
def test_requests_agree_with_the_sdk(asked: list[tuple[int, requests.Request]]) -> None:
    """Both codecs decode the same commands from the output of the SDK."""
    names = {request: name for name, request in REQUESTS.items()}
    lines = [
        f'{{"id":{ref},"{names[type(request)]}":{msgspec.json.encode(request).decode()}}}' for ref, request in asked
    ]
    expected = [
        requests.Command(None if type(request) is requests.SendRequest else ref, request) for ref, request in asked
    ]
    assert list(JSON.decode("\n".join(lines).encode(), False)) == expected
    # With escapes instead of UTF-8, as many languages encode it, everything except the text of payloads is the same.
    escaped = JSON.decode("\n".join(json.dumps(json.loads(line)) for line in lines).encode(), False)
    assert [command.ref for command in escaped] == [command.ref for command in expected]
    assert list(PROTOBUF.decode(official.command_frame(lines), True)) == expected
