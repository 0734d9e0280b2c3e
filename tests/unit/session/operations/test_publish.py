"""Publishing from SDKs, into rooms and into the lobby: section 13 of the protocol reference."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw, structs

from beaconfire.base.errors import CommandError
from beaconfire.channels.data_format import check_data
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.identity import Identity
from tests.unit.kit import OPEN, RECOVERABLE, World, settle


def formatted(name: Any) -> ChannelOptions:
    return ChannelOptions(allow_subscribe_for_client=True, allow_publish_for_client=True, publication_data_format=name)


def test_subscribers_hear_it_the_publisher_too() -> None:
    """The answer is empty; who published is in it."""
    world = World()
    ann, bob = world.connect("ann", "news"), world.connect("bob", "news")
    number = ann.send("publish", channel="news", data={"a": 1})
    expected = {"push": {"channel": "news", "pub": {"data": {"a": 1}, "info": {"user": "ann", "client": ann.id}}}}
    assert ann.take() == [{"id": number, "publish": {}}, expected]
    assert bob.take() == [expected]


def test_the_info_says_who_the_publisher_is_here() -> None:
    """What its subscription says is there only if it is subscribed."""
    world = World()
    witness = world.connect("bob", "news")
    client = world.connect("ann", info=Raw(b'"conn"'))
    client.ask("publish", channel="news", data=1)
    world.tokens.let_subscribe("t", "ann", "news", info=Raw(b'"chan"'))
    client.ask("subscribe", channel="news", token="t")
    client.ask("publish", channel="news", data=2)
    infos = [push["pub"]["info"] for push in witness.take_pushes()]
    assert [(info["conn_info"], info.get("chan_info")) for info in infos] == [("conn", None), ("conn", "chan")]


def test_anonymous_publishers_are_shown_under_the_names_they_chose() -> None:
    """Whichever protocol they speak: native ones say it in their data, plain ones as user."""
    world = World(structs.replace(OPEN, allow_publish_for_anonymous=True))
    witness = world.connect("bob", "news")
    native, plain = world.open_session(), world.plain()
    native.ask("connect", data={"name": "Ann", "theme": "dark"})
    native.ask("publish", channel="news", data=1)
    plain.say(type="handshake", user="Cyrus")
    plain.say(type="message", room="news", data=2)
    infos = [push["pub"]["info"] for push in witness.take_pushes()]
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
def test_what_may_be_published(channel: str, data: dict[str, Any], code: int) -> None:
    """Channel, namespace, permission and then the data; only no byte at all is empty."""
    world = World(OPEN, {"closed": ChannelOptions(), "members": ChannelOptions(allow_publish_for_subscriber=True)})
    assert world.connect("ann").outcome("publish", channel=channel, **data) == code


def test_subscribers_may_be_the_ones_who_publish() -> None:
    """While they are in."""
    world = World(ChannelOptions(allow_subscribe_for_client=True, allow_publish_for_subscriber=True))
    client = world.connect("ann", "news")
    assert client.outcome("publish", channel="news", data=1) == 0
    client.ask("unsubscribe", channel="news")
    assert client.outcome("publish", channel="news", data=1) == 103


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
def test_data_must_have_the_format_of_its_namespace(name: str, data: str, code: int) -> None:
    """Where one is configured."""
    client = World(formatted(name)).connect("ann")
    assert client.outcome("publish", channel="news", data=json.loads(data)) == code


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("", b"\xff", 0),
        ("", b"", 107),
        ("json", b"\xff", 107),
        ("json", b"{", 107),
        ("json", b"", 107),
        ("json_object", b'{"a":', 107),
        ("json_object", b"", 107),
        ("binary", b"\xff", 0),
        ("binary", b"", 0),
    ],
)
def test_binary_data_is_checked_as_well(name: str, data: bytes, code: int) -> None:
    """Whatever bytes a Protobuf client or a backend brings."""
    namespace = World(formatted(name)).namespaces.resolve("news")
    if code == 0:
        check_data(Raw(data), namespace)
        return
    with pytest.raises(CommandError) as raised:
        check_data(Raw(data), namespace)
    assert raised.value.code.code == code


def test_a_payload_that_is_not_json_ends_json_sessions_only_where_it_goes() -> None:
    """With 3506, for those who would get it; others, and the publisher elsewhere, live on."""
    world = World()
    victim, bystander = world.connect("ann", "news"), world.connect("bob", "other")
    world.publish("news", Raw(b"\xff"))
    world.turn()
    assert (victim.ended, bystander.ended) == (3506, 0)


def test_a_payload_that_is_not_json_in_a_reply_ends_the_session() -> None:
    """In recovered publications, in history and in what was held: 3506, and no reply."""
    world = World(RECOVERABLE)
    world.publish("news", Raw(b"\xff"))
    for method, fields in (("subscribe", {"recover": True, "epoch": "epoch1"}), ("history", {"limit": 1})):
        client = world.connect("ann")
        assert client.outcome(method, channel="news", **fields) == 3506
    assert world.node.hub.statistics().subscriptions == 0

    async def scenario() -> None:
        world = World(ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True))
        client = world.connect("ann")
        world.stops.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        world.publish("news", Raw(b"\xff"))
        world.turn()
        assert client.ended == 0
        world.stops.release("presence_add")
        await settle()
        assert client.ended == 3506
        assert world.node.hub.statistics().subscriptions == 0
        assert not any(call.startswith("publish_join") for call in world.stops.passed), "it ended before it came"

    asyncio.run(scenario())


def test_data_travels_as_it_is() -> None:
    """Not parsed and written again: numbers, spaces and order of keys stay."""
    world = World()
    listener = world.connect("bob", "news")
    text = '{"b": 1.00,  "a": 12345678901234567890, "b": "\\u00e9"}'
    world.connect("ann").send_text('{"id":2,"publish":{"channel":"news","data":' + text + "}}")
    world.turn()
    assert text.encode() in listener.transport.writes[-1]


# --- rooms of the plain protocol


def test_a_room_message_reaches_the_others() -> None:
    """The sender gets the acknowledgement with the offset, and the message itself only with echo."""
    world = World(RECOVERABLE)
    bob = world.connect("bob", "news")
    ann = world.connect_plain("ann")
    ann.say(type="join", room="news")
    assert ann.say(type="message", room="news", data="hi", id=7) == [
        {"type": "ack", "id": 7, "offset": 1, "epoch": "epoch1"}
    ]
    echoed = ann.say(type="message", room="news", data="ho", id=8, echo=True)
    assert [(message["type"], message.get("data")) for message in echoed] == [("ack", None), ("message", "ho")]
    assert [push["pub"]["data"] for push in bob.take_pushes()] == ["hi", "ho"]
    assert ann.session.subscriptions["news"].position == (2, "epoch1")


def test_other_connections_of_the_sender_hear_it() -> None:
    """A second tab of the same user is somebody else."""
    world = World()
    first, second = world.connect_plain("ann"), world.connect_plain("ann")
    for client in (first, second):
        client.say(type="join", room="news")
    first.say(type="message", room="news", data=1)
    assert [message["data"] for message in second.take()] == [1]


def test_rooms_have_the_permissions_of_channels() -> None:
    """There is no second way in."""
    world = World(ChannelOptions(), {"open": OPEN})
    client = world.connect_plain("ann")
    codes = [
        client.say(type=kind, room=room, **fields)[0].get("code", 0)
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


def test_lobby_frames_reach_everyone_the_sender_too() -> None:
    """As they are, with no handshake and no permission; an SDK client in the channel sees them as JSON."""
    world = World(ChannelOptions(), insecure=False, allow_anonymous=False)
    world.tokens.let_subscribe("t", "bob", "lobby")
    sdk = world.connect("bob")
    sdk.ask("subscribe", channel="lobby", token="t")
    first, second = world.plain("lobby"), world.plain("lobby")
    for frame in (b'{"a" : 1}', b"hello there", b""):
        first.session.on_data(frame, False)
        world.turn()
        for client in (first, second):
            assert client.transport.writes[-1] == frame + b"\n"
    assert [push["pub"]["data"] for push in sdk.take_pushes()] == [{"a": 1}, "hello there", ""]


def test_lobby_frames_carry_who_sent_them() -> None:
    """For SDK clients and backends: nobody at first, the user after the handshake."""
    world = World()
    world.tokens.let_subscribe("t", "bob", "lobby")
    sdk = world.connect("bob")
    sdk.ask("subscribe", channel="lobby", token="t")
    client = world.plain("lobby")
    client.send_text("[1]")
    world.tokens.connections.known["ann"] = Identity(user="ann")
    assert client.say(type="handshake", token="ann")[0]["type"] == "welcome"
    client.send_text("[2]")
    assert [push["pub"]["info"]["user"] for push in sdk.take_pushes()] == ["", "ann"]
