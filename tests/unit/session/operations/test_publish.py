"""Publish commands of SDKs, of the plain protocol, and into the lobby: section 13 of the protocol reference."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw, structs

from beaconfire.channels.options import ChannelOptions
from beaconfire.model.identity import Identity
from tests.unit.kit import OPEN, RECOVERABLE, NodeHarness, settle


def test_every_subscriber_gets_the_publication_and_the_publisher_as_well() -> None:
    """The reply is empty, and the publication has the info of the publisher."""
    harness = NodeHarness()
    ann, bob = harness.connect("ann", "news"), harness.connect("bob", "news")
    number = ann.send("publish", channel="news", data={"a": 1})
    expected = {"push": {"channel": "news", "pub": {"data": {"a": 1}, "info": {"user": "ann", "client": ann.id}}}}
    assert ann.receive() == [{"id": number, "publish": {}}, expected]
    assert bob.receive() == [expected]


def test_publication_has_connection_and_channel_info() -> None:
    """The channel info only if the publisher is subscribed."""
    harness = NodeHarness()
    subscriber = harness.connect("bob", "news")
    client = harness.connect("ann", info=Raw(b'"conn"'))
    client.request("publish", channel="news", data=1)
    harness.tokens.add_subscription("t", "ann", "news", info=Raw(b'"chan"'))
    client.request("subscribe", channel="news", token="t")
    client.request("publish", channel="news", data=2)
    infos = [push["pub"]["info"] for push in subscriber.receive_pushes()]
    assert [(info["conn_info"], info.get("chan_info")) for info in infos] == [("conn", None), ("conn", "chan")]


def test_anonymous_publishers_have_the_name_of_their_connect_request() -> None:
    """Native clients send it in their data, plain clients as user."""
    harness = NodeHarness(structs.replace(OPEN, allow_publish_for_anonymous=True))
    subscriber = harness.connect("bob", "news")
    native, plain = harness.open_session(), harness.open_plain_session()
    native.request("connect", data={"name": "Ann", "theme": "dark"})
    native.request("publish", channel="news", data=1)
    plain.send_plain(type="handshake", user="Cyrus")
    plain.send_plain(type="message", room="news", data=2)
    infos = [push["pub"]["info"] for push in subscriber.receive_pushes()]
    assert [(info["user"], info["conn_info"]) for info in infos] == [("", {"name": "Ann"}), ("", {"name": "Cyrus"})]


@pytest.mark.parametrize(
    ("channel", "data", "code"),
    [
        ("", {"data": 1}, 3501),
        ("nowhere:x", {"data": 1}, 102),
        ("closed:x", {"data": 1}, 103),
        ("closed:x", {}, 103),
        ("news", {}, 107),
        ("news", {"data": None}, 0),
        ("news", {"data": ""}, 0),
        ("members:x", {"data": 1}, 103),
    ],
)
def test_publish_checks_its_request_in_order(channel: str, data: dict[str, Any], code: int) -> None:
    """The order is channel, namespace, permission, data. Only zero bytes are empty data."""
    harness = NodeHarness(
        OPEN, {"closed": ChannelOptions(), "members": ChannelOptions(allow_publish_for_subscriber=True)}
    )
    assert harness.connect("ann").request_code("publish", channel=channel, **data) == code


def test_publish_permission_for_subscribers_ends_with_the_subscription() -> None:
    """The option is `allow_publish_for_subscriber`."""
    harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, allow_publish_for_subscriber=True))
    client = harness.connect("ann", "news")
    assert client.request_code("publish", channel="news", data=1) == 0
    client.request("unsubscribe", channel="news")
    assert client.request_code("publish", channel="news", data=1) == 103


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("", '"x"', 0),
        ("json", '{"a":[1,null]}', 0),
        ("json", "1", 0),
        ("json_object", '{"a":1}', 0),
        ("json_object", '  {"a":1}', 0),
        ("json_object", "[1]", 107),
        ("json_object", '"{}"', 107),
        ("json_object", "null", 107),
        ("binary", "1", 0),
    ],
)
def test_data_must_have_the_format_of_the_namespace(name: Any, data: str, code: int) -> None:
    """A namespace without a configured format accepts any data that is not empty."""
    options = ChannelOptions(allow_publish_for_client=True, publication_data_format=name)
    client = NodeHarness(options).connect("ann")
    assert client.request_code("publish", channel="news", data=json.loads(data)) == code


def test_publication_that_is_not_json_ends_the_json_sessions_of_its_subscribers() -> None:
    """The code is 3506. Other sessions are not affected."""
    harness = NodeHarness()
    subscriber, other = harness.connect("ann", "news"), harness.connect("bob", "other")
    harness.publish("news", Raw(b"\xff"))
    harness.run_scheduled()
    assert (subscriber.disconnect_code, other.disconnect_code) == (3506, 0)


def test_reply_with_a_publication_that_is_not_json_ends_the_session_with_3506() -> None:
    """The publication may be recovered, read from history, or held."""
    harness = NodeHarness(RECOVERABLE)
    harness.publish("news", Raw(b"\xff"))
    for method, fields in (("subscribe", {"recover": True, "epoch": "epoch1"}), ("history", {"limit": 1})):
        client = harness.connect("ann")
        assert client.request_code(method, channel="news", **fields) == 3506
    assert harness.node.hub.statistics().subscriptions == 0

    async def scenario() -> None:
        harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True))
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        harness.publish("news", Raw(b"\xff"))
        harness.run_scheduled()
        assert client.disconnect_code == 0
        harness.calls.release("presence_add")
        await settle()
        assert client.disconnect_code == 3506
        assert harness.node.hub.statistics().subscriptions == 0
        assert not any(" join " in call for call in harness.calls.completed), "the session ended before the join"

    asyncio.run(scenario())


def test_data_is_not_reencoded() -> None:
    """Numbers, spaces, and the order of keys stay as they are."""
    harness = NodeHarness()
    subscriber = harness.connect("bob", "news")
    text = '{"b": 1.00,  "a": 12345678901234567890, "b": "\\u00e9"}'
    harness.connect("ann").send_text('{"id":2,"publish":{"channel":"news","data":' + text + "}}")
    harness.run_scheduled()
    assert text.encode() in subscriber.transport.writes[-1]


# --- rooms of the plain protocol


def test_room_message_reaches_the_other_clients() -> None:
    """The sender gets an acknowledgement with the offset, and the message itself only with echo."""
    harness = NodeHarness(RECOVERABLE)
    bob = harness.connect("bob", "news")
    ann = harness.connect_plain("ann")
    ann.send_plain(type="join", room="news")
    assert ann.send_plain(type="message", room="news", data="hi", id=7) == [
        {"type": "ack", "id": 7, "offset": 1, "epoch": "epoch1", "durability": "memory"}
    ]
    echoed = ann.send_plain(type="message", room="news", data="ho", id=8, echo=True)
    assert [(message["type"], message.get("data")) for message in echoed] == [("ack", None), ("message", "ho")]
    assert [push["pub"]["data"] for push in bob.receive_pushes()] == ["hi", "ho"]
    assert ann.session.subscriptions["news"].position == (2, "epoch1")


def test_room_message_reaches_other_connections_of_the_sender() -> None:
    """A second connection of the same user gets the message."""
    harness = NodeHarness()
    first, second = harness.connect_plain("ann"), harness.connect_plain("ann")
    for client in (first, second):
        client.send_plain(type="join", room="news")
    first.send_plain(type="message", room="news", data=1)
    assert [message["data"] for message in second.receive()] == [1]


def test_rooms_have_the_permissions_of_channels() -> None:
    """The plain protocol has no other permissions."""
    harness = NodeHarness(ChannelOptions(), {"open": OPEN})
    client = harness.connect_plain("ann")
    codes = [
        client.send_plain(type=kind, room=room, **fields)[0].get("code", 0)
        for kind, room, fields in [
            ("join", "news", {}),
            ("join", "nowhere:x", {}),
            ("join", "$open:x", {}),
            ("message", "news", {"data": 1}),
            ("presence", "open:x", {}),
            ("history", "open:x", {}),
            ("join", "open:x", {}),
            ("message", "open:x", {"data": 1}),
        ]
    ]
    assert codes == [103, 102, 103, 103, 108, 108, 0, 0]


# --- the lobby


def test_lobby_frames_reach_every_connection_and_the_sender_as_well() -> None:
    """The frame is unchanged, and needs no handshake and no permission.

    An SDK client in the channel gets it as JSON.
    """
    harness = NodeHarness(ChannelOptions(), insecure=False, allow_anonymous=False)
    harness.tokens.add_subscription("t", "bob", "lobby")
    sdk = harness.connect("bob")
    sdk.request("subscribe", channel="lobby", token="t")
    first, second = harness.open_plain_session("lobby"), harness.open_plain_session("lobby")
    for frame in (b'{"a" : 1}', b"hello there", b""):
        first.session.on_data(frame, False)
        harness.run_scheduled()
        for client in (first, second):
            assert client.transport.writes[-1] == frame + b"\n"
    assert [push["pub"]["data"] for push in sdk.receive_pushes()] == [{"a": 1}, "hello there", ""]


def test_lobby_frames_have_the_info_of_their_sender() -> None:
    """The user is empty before the handshake."""
    harness = NodeHarness()
    harness.tokens.add_subscription("t", "bob", "lobby")
    sdk = harness.connect("bob")
    sdk.request("subscribe", channel="lobby", token="t")
    client = harness.open_plain_session("lobby")
    client.send_text("[1]")
    harness.tokens.connections.known["ann"] = Identity(user="ann")
    assert client.send_plain(type="handshake", token="ann")[0]["type"] == "welcome"
    client.send_text("[2]")
    assert [push["pub"]["info"]["user"] for push in sdk.receive_pushes()] == ["", "ann"]
