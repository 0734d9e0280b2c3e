"""Connect, refresh and what belongs to the connection as a whole: sections 5, 6, 8 and 13 of the reference."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw, structs

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    BAD_REQUEST,
    PERMISSION_DENIED,
    CommandError,
    Disconnect,
)
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import SessionConnected, SessionEnded
from beaconfire.model.grants import SubscriptionClaims, SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import SubscribeRequest
from beaconfire.policy.tokens import TokenExpired, TokenUnverifiable
from beaconfire.transports.traits import SessionTraits
from tests.unit.kit import OPEN, RECOVERABLE, VISIBLE, Client, World, run, settle

UNIX_S = 1_700_000_000
ANYBODY = ChannelOptions(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True)
LISTED = ChannelOptions(allow_user_limited_channels=True)


def granted(*channels: str) -> dict[str, SubscriptionGrant]:
    return {channel: SubscriptionGrant() for channel in channels}


def connecting(world: World, identity: Identity, **request: Any) -> tuple[Client, int]:
    """A client with a token that says this, and what came of its connect."""
    world.tokens.connections.known["t"] = identity
    client = world.open_session()
    return client, client.outcome("connect", token="t", **request)


# --- connect


def test_the_result_is_as_small_as_can_be() -> None:
    """Id, version, and how pings go; whatever else there could be has no value yet and is left out."""
    result = World().open_session().ask("connect")
    assert result == {"client": "client1", "version": "Beaconfire 1.2.3", "ping": 25, "pong": True}


def test_the_servers_time_is_in_the_result_on_request() -> None:
    """In milliseconds since 1970."""
    assert World(connect_include_server_time=True).open_session().ask("connect")["time"] == UNIX_S * 1000


def test_connecting_is_reported() -> None:
    """With what the SDK says of itself."""
    world = World()
    world.tokens.connections.known["t"] = Identity(user="ann")
    world.open_session().ask("connect", token="t", name="js", version="5.7")
    assert world.recorder.of(SessionConnected) == [
        SessionConnected("client1", "ann", "test", "centrifuge-json", "js", "5.7")
    ]
    assert (len(world.node.registry), world.node.statistics().users) == (1, 1)


def test_a_second_connect_ends_the_session() -> None:
    """With 3501, after a good one and while the first is still on its way."""
    client = World().connect()
    assert client.outcome("connect") == 3501

    async def scenario() -> None:
        world = World()
        world.stops.hold("verify")
        hasty = world.open_session()
        hasty.send("connect", token="t")
        hasty.send("connect", token="t")
        assert hasty.ended == 0
        world.tokens.connections.known["t"] = Identity(user="ann")
        world.stops.release("verify")
        await settle()
        assert hasty.ended == 3501

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["subscribe", "publish", "history", "refresh", "rpc", "unsubscribe", "connect"])
def test_a_connect_that_failed_leaves_a_useless_connection(method: str) -> None:
    """After the error reply any command is the end with 3501; nobody is registered."""
    world = World()
    world.tokens.connections.known["t"] = TokenExpired("exp")
    client = world.open_session()
    assert client.outcome("connect", token="t") == 109
    assert client.ended == 0
    assert len(world.node.registry) == 0
    assert client.outcome(method, **({} if method == "connect" else {"channel": "news"})) == 3501


@pytest.mark.parametrize(
    "method", ["subscribe", "publish", "presence", "history", "unsubscribe", "refresh", "sub_refresh"]
)
def test_the_first_command_must_be_connect(method: str) -> None:
    """Anything else is the end with 3501."""
    assert World().open_session().outcome(method, channel="news") == 3501


@pytest.mark.parametrize("text", ["{}", '{"send":{"data":1}}', '{"id":1,"ping":{}}', '{"id":1}', "", "\n", "[]", "x"])
def test_garbage_for_a_start_ends_the_session(text: str) -> None:
    """A pong, a send or a ping nobody asked for, and what is no command at all: 3501."""
    client = World().open_session()
    client.send_text(text)
    assert client.ended == 3501


def test_a_pong_for_a_start_is_called_what_it_usually_is() -> None:
    """Unknown bytes decode to one: the reason says that connect was expected, not that no ping was sent."""
    client = World(debug_reasons=True).open_session()
    client.send_text("{}")
    assert client.transport.closed == (3501, "bad request: the first command must be connect")


def test_without_credentials_a_native_client_is_ended() -> None:
    """With 3501, and a plain one gets error 101 and may try again."""
    world = World(allow_anonymous=False)
    assert world.open_session().outcome("connect") == 3501
    plain = world.plain()
    assert plain.say(type="handshake", id=1) == [
        {"type": "error", "id": 1, "code": 101, "message": "unauthorized"},
    ]
    assert plain.ended == 0
    world.tokens.connections.known["t"] = Identity(user="ann")
    assert [message["type"] for message in plain.say(type="handshake", token="t")] == ["welcome"]
    assert plain.session.user == "ann"


@pytest.mark.parametrize(
    ("expire_in_s", "options", "code"),
    [(0.0, {}, 110), (-5.0, {}, 110), (5.0, {}, 0), (-5.0, {"insecure": True}, 0)],
)
def test_a_connection_whose_time_is_up_is_error_110(expire_in_s: float, options: dict[str, Any], code: int) -> None:
    """Unless expiry does not count, in insecure mode."""
    world = World(**options)
    identity = Identity(user="ann", expire_at_unix_s=UNIX_S + expire_in_s, client_refresh=True)
    client, outcome = connecting(world, identity)
    assert outcome == code
    assert len(world.node.registry) == (0 if code else 1)
    if options:
        world.pass_time(3600 * 24, step_s=20_000)
        assert client.ended in (0, 3012)


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (Identity(user="ann", expire_at_unix_s=UNIX_S + 60.5, client_refresh=True), (True, 60)),
        (Identity(user="ann", expire_at_unix_s=UNIX_S + 0.5, client_refresh=True), (True, 1)),
        (Identity(user="ann", expire_at_unix_s=UNIX_S + 10**9, client_refresh=True), (True, 365 * 86400)),
        (Identity(user="ann", expire_at_unix_s=UNIX_S + 60, client_refresh=False), (False, 0)),
        (Identity(user="ann"), (False, 0)),
    ],
)
def test_the_client_learns_when_to_refresh(identity: Identity, expected: tuple[bool, int]) -> None:
    """In whole seconds of at most a year, and only if it is the one to refresh."""
    world = World()
    world.tokens.connections.known["t"] = identity
    result = world.open_session().ask("connect", token="t")
    assert (result.get("expires", False), result.get("ttl", 0)) == expected


def test_insecure_connections_do_not_expire() -> None:
    """The token is verified, its expiry is not watched."""
    world = World(insecure=True, ping_interval=Seconds(0))
    world.tokens.connections.known["t"] = Identity(user="ann", expire_at_unix_s=UNIX_S + 5, client_refresh=True)
    client = world.open_session()
    assert "expires" not in client.ask("connect", token="t")
    world.pass_time(100, step_s=5)
    assert client.ended == 0


def test_a_user_may_have_so_many_connections() -> None:
    """One more is the end with 3504; the others stay, other users and nameless ones are not counted."""
    world = World(user_connection_limit=2)
    first, second = world.connect("ann"), world.connect("ann")
    refused, outcome = connecting(world, Identity(user="ann"))
    assert outcome == 3504
    assert world.recorder.limits() == ["client.user_connection_limit"]
    assert (first.ended, second.ended) == (0, 0)
    assert connecting(world, Identity(user="bob"))[1] == 0
    for _ in range(5):
        assert world.open_session().outcome("connect") == 0
    first.cut()
    assert connecting(world, Identity(user="ann"))[1] == 0
    assert refused.ended == 3504


def test_connections_that_are_being_made_count() -> None:
    """Nobody slips through the limit by connecting many times at once."""

    async def scenario() -> None:
        world = World(RECOVERABLE, user_connection_limit=1)
        world.stops.hold("history")
        world.tokens.connections.known["t"] = Identity(user="ann", channels=granted("news"))
        first, second = world.open_session(), world.open_session()
        first.send("connect", token="t")
        second.send("connect", token="t")
        assert second.ended == 3504
        world.stops.release("history")
        await settle()
        assert "connect" in first.take()[0]

    asyncio.run(scenario())


# --- server-side subscriptions


def subs(world: World, identity: Identity, **request: Any) -> dict[str, Any]:
    world.tokens.connections.known["t"] = identity
    found: dict[str, Any] = world.open_session().ask("connect", token="t", **request).get("subs", {})
    return found


def test_the_tokens_channels_are_subscribed() -> None:
    """Whatever the namespaces permit, private ones too, and with what the token says of each."""
    grants = {"$secret": SubscriptionGrant(data=Raw(b'{"a":1}')), "news": SubscriptionGrant()}
    world = World(ChannelOptions())
    assert subs(world, Identity(user="ann", channels=grants)) == {"$secret": {"data": {"a": 1}}, "news": {}}


def test_publications_of_server_side_channels_come_after_the_reply() -> None:
    """From the moment of the reply on, like any other."""
    world = World(ChannelOptions())
    client = world.connect("ann", channels=granted("news"))
    world.publish("news", "x")
    assert client.take_pushes() == [{"channel": "news", "pub": {"data": "x"}}]


def test_the_personal_channel() -> None:
    """Named users have it if it is switched on, in its namespace; the anonymous user never."""
    on = World(user_personal_channel=True)
    assert subs(on, Identity(user="42")) == {"#42": {}}
    assert subs(on, Identity()) == {}
    assert subs(World(), Identity(user="42")) == {}
    spaced = World(namespaces={"own": OPEN}, user_personal_channel=True, user_personal_channel_namespace="own")
    assert subs(spaced, Identity(user="42")) == {"own:#42": {}}


def test_the_tokens_word_on_the_personal_channel_counts() -> None:
    """What it grants is not replaced by a bare grant."""
    world = World(user_personal_channel=True)
    grants = {"#42": SubscriptionGrant(data=Raw(b"1"))}
    assert subs(world, Identity(user="42", channels=grants)) == {"#42": {"data": 1}}


def test_asking_for_a_granted_channel_changes_no_grant() -> None:
    """The entry is where the client stands in it, even where it could have it without a token."""
    grants = {"news": SubscriptionGrant(data=Raw(b"1"))}
    assert subs(World(OPEN), Identity(user="ann", channels=grants), subs={"news": {}}) == {"news": {"data": 1}}


@pytest.mark.parametrize(
    ("channel", "user", "options", "there"),
    [
        ("news", "ann", OPEN, True),
        ("news", "", OPEN, False),
        ("news", "", ANYBODY, True),
        ("news", "ann", ChannelOptions(), False),
        ("$news", "ann", OPEN, False),
        ("naïve", "ann", OPEN, False),
        ("", "ann", OPEN, False),
        ("x" * 256, "ann", OPEN, False),
        ("x#ann,bob", "ann", LISTED, True),
        ("x#bob", "ann", LISTED, False),
        ("$x#ann", "ann", LISTED, False),
    ],
)
def test_a_client_may_ask_for_channels_it_could_have(
    channel: str, user: str, options: ChannelOptions, there: bool
) -> None:
    """What it may not have without a token is silently skipped (section 6)."""
    found = subs(World(options), Identity(user=user), subs={channel: {}})
    assert set(found) == ({channel} if there else set())


def test_insecure_clients_may_ask_for_any_but_private_channels() -> None:
    """As when subscribing."""
    found = subs(World(ChannelOptions(), insecure=True), Identity(), subs={"news": {}, "$secret": {}})
    assert set(found) == {"news"}


@pytest.mark.parametrize("channel", ["nowhere:x", "$nowhere:x"])
def test_asking_for_an_unknown_namespace_ends_the_session(channel: str) -> None:
    """With 3501; so does a token that grants one, because such a client would lack what it relies on."""
    assert connecting(World(), Identity(user="ann"), subs={channel: {}})[1] == 3501
    assert connecting(World(), Identity(user="ann", channels=granted(channel)))[1] == 3501


def test_too_many_server_side_channels_end_the_session() -> None:
    """With 3505: token, personal and asked for count together; exactly the limit is fine."""
    world = World(channel_limit=3, user_personal_channel=True)
    identity = Identity(user="ann", channels=granted("a"))
    assert connecting(world, identity, subs={"b": {}})[1] == 0
    assert connecting(world, identity, subs={"a": {}, "b": {}, "#ann": {}})[1] == 0
    client, outcome = connecting(world, identity, subs={"b": {}, "c": {}})
    assert outcome == 3505
    assert world.recorder.limits() == ["client.channel_limit"]
    assert client.session.subscriptions == {}


def test_server_side_channels_recover() -> None:
    """The entry in connect.subs is where the client stands (section 6, a)."""
    world = World(RECOVERABLE)
    world.publish("news", 1, 2, 3)
    identity = Identity(user="ann", channels=granted("news"))
    found = subs(world, identity, subs={"news": {"recover": True, "offset": 1, "epoch": "epoch1"}})
    assert found["news"] == {
        "recoverable": True,
        "positioned": True,
        "was_recovering": True,
        "recovered": True,
        "epoch": "epoch1",
        "offset": 1,
        "publications": [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}],
    }
    lost = subs(world, identity, subs={"news": {"recover": True, "offset": 1, "epoch": "_"}})
    assert lost["news"] == {
        "recoverable": True,
        "positioned": True,
        "was_recovering": True,
        "epoch": "epoch1",
        "offset": 3,
    }


def test_a_client_cannot_ask_its_way_to_more() -> None:
    """Of an entry in connect.subs the position counts, and a token where nothing is granted; not the rest."""
    options = ChannelOptions(join_leave=True, presence=True, allow_presence_for_client=True, history_size=5)
    wish = {"positioned": True, "recoverable": True, "join_leave": True, "token": "x", "type": 7, "delta": "x"}
    assert subs(World(options), Identity(user="ann", channels=granted("news")), subs={"news": wish}) == {"news": {}}


@pytest.mark.parametrize(
    "options", [ChannelOptions(allow_recovery=True), ChannelOptions(allow_history_for_client=True)]
)
def test_recovery_may_be_asked_for_where_it_is_allowed(options: ChannelOptions) -> None:
    """In so many words, or by a position, which nobody has who was not given one."""
    world = World(structs.replace(options, history_size=5, history_ttl=Seconds(60)))
    world.publish("news", 1, 2)
    identity = Identity(user="ann", channels=granted("news"))
    assert subs(world, identity, subs={"news": {}}) == {"news": {}}
    assert subs(world, identity, subs={"news": {"recoverable": True}})["news"]["recoverable"] is True
    back = subs(world, identity, subs={"news": {"recover": True, "offset": 1, "epoch": "epoch1"}})["news"]
    assert (back["recovered"], back["publications"]) == (True, [{"data": 2, "offset": 2}])


def test_a_token_opens_a_channel_that_is_asked_for() -> None:
    """A private one too, with what the token says of it, from the position in the entry, and until the token ends."""
    world = World(RECOVERABLE)
    world.publish("$vault", 1, 2)
    grant: dict[str, Any] = {"data": Raw(b'"d"'), "expire_at_unix_s": UNIX_S + 60, "client_refresh": True}
    world.tokens.let_subscribe("v", "ann", "$vault", **grant)
    wish = {"token": "v", "recover": True, "offset": 1, "epoch": "epoch1"}
    result = subs(world, Identity(user="ann"), subs={"$vault": wish})["$vault"]
    assert (result["data"], result["ttl"], result["recovered"]) == ("d", 60, True)
    assert result["publications"] == [{"data": 2, "offset": 2}]


def test_what_the_connections_token_grants_needs_no_other() -> None:
    """Its word on a channel wins; the entry's token is not even looked at."""
    world = World(ChannelOptions())
    world.tokens.let_subscribe("v", "ann", "news", data=Raw(b"2"))
    grants = {"news": SubscriptionGrant(data=Raw(b"1"))}
    found = subs(world, Identity(user="ann", channels=grants), subs={"news": {"token": "v"}})
    assert found == {"news": {"data": 1}}
    assert "verify v" not in world.stops.passed


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        (TokenExpired("exp"), 0),
        (None, 0),
        (SubscriptionClaims("ann", "news", "", SubscriptionGrant(expire_at_unix_s=UNIX_S)), 0),
        (SubscriptionClaims("bob", "news", "", SubscriptionGrant()), 3500),
        (SubscriptionClaims("ann", "other", "", SubscriptionGrant()), 3500),
        (SubscriptionClaims("ann", "news", "elsewhere", SubscriptionGrant()), 3500),
    ],
)
def test_a_token_that_opens_nothing(token: SubscriptionClaims | Exception | None, outcome: int) -> None:
    """The channel is left out, though it could be had without; a token that is not for this client and channel ends the
    session, as it does in subscribe."""
    world = World(OPEN)
    if token is not None:
        world.tokens.subscriptions.known["s"] = token
    client, code = connecting(world, Identity(user="ann"), subs={"news": {"token": "s"}, "open": {}})
    assert code == outcome
    assert set(client.session.subscriptions) == (set() if outcome else {"open"})


@pytest.mark.parametrize(("unidirectional", "outcome"), [(False, 100), (True, 3004)])
def test_a_token_that_cannot_be_verified_now_is_a_reason_to_come_back(unidirectional: bool, outcome: int) -> None:
    """Whoever only listens can't ask for the channel later, and would be without it for good."""
    world = World(OPEN)
    world.tokens.subscriptions.known["s"] = TokenUnverifiable("no keys")
    world.tokens.connections.known["t"] = Identity(user="ann")
    client = world.open_session(SessionTraits(unidirectional=unidirectional))
    assert client.outcome("connect", token="t", subs={"news": {"token": "s"}}) == outcome
    assert world.node.hub.statistics().subscriptions == 0


def test_tokens_count_before_they_are_looked_at() -> None:
    """More entries than the client may have channels end the session, and cost no verification."""
    world = World(ChannelOptions(), channel_limit=2)
    wanted = {f"c{number}": {"token": "s"} for number in range(3)}
    assert connecting(world, Identity(user="ann"), subs=wanted)[1] == 3505
    assert "verify s" not in world.stops.passed


def test_the_policy_decides_about_every_channel_that_is_asked_for() -> None:
    """With a token or without one: a channel that it refuses is left out, as if the client had not asked."""
    world = World(OPEN)
    asked: list[str] = []

    async def refuse_secrets(identity: Identity, client: str, request: SubscribeRequest, namespace: Any) -> Any:
        asked.append(request.channel)
        if request.channel == "secret":
            raise CommandError(PERMISSION_DENIED, "not for you")
        return SubscriptionGrant(data=Raw(b'"welcome"'))

    world.policy.subscribe = refuse_secrets  # type: ignore[method-assign]  # a policy of the application's
    found = subs(world, Identity(user="ann"), subs={"secret": {}, "news": {}})
    assert asked == ["secret", "news"]
    assert found == {"news": {"data": "welcome"}}
    assert not world.node.hub.has_subscribers("secret")


def test_many_tokens_are_verified_in_slices() -> None:
    """Other clients get their turn in between: verifying takes a tenth of a millisecond each."""

    async def scenario() -> None:
        world = World(ChannelOptions())
        world.tokens.connections.known["t"] = Identity(user="ann")
        verify = world.tokens.verify_subscription

        async def take_a_while(token: str) -> SubscriptionClaims:
            world.clock.advance(0.001)
            return await verify(token)

        world.tokens.verify_subscription = take_a_while  # type: ignore[method-assign]
        wanted = {}
        for number in range(40):
            channel = f"c{number}"
            wanted[channel] = {"token": world.tokens.let_subscribe(f"s{number}", "ann", channel)}
        client = world.open_session()
        client.send("connect", token="t", subs=wanted)
        turns = 0
        while not client.session.subscriptions:
            verified = sum(entry.startswith("verify s") for entry in world.stops.passed)
            assert verified <= 5 * (turns + 1)
            turns += 1
            world.turn()
            await settle()
        assert turns >= 7
        for _ in range(20):
            world.turn()
            await settle()
        [reply] = client.take()
        assert len(reply["connect"]["subs"]) == 40

    asyncio.run(scenario())


def test_a_client_that_goes_while_its_token_is_verified_leaves_nothing() -> None:
    """Nothing is entered after the end."""

    async def scenario() -> None:
        world = World(OPEN)
        world.tokens.connections.known["t"] = Identity(user="ann")
        world.tokens.let_subscribe("s", "ann", "news")
        client = world.open_session()
        let_in = world.stops.hold("verify")
        client.send("connect", token="t", subs={"news": {"token": "s"}})
        world.stops.hold("verify")
        let_in()
        await settle()
        assert world.stops.passed == ["verify t"]
        client.cut()
        world.stops.release("verify")
        await settle()
        assert world.stops.passed == ["verify t", "verify s"]
        assert (world.node.hub.statistics().subscriptions, len(world.node.registry)) == (0, 0)

    asyncio.run(scenario())


def test_one_bad_channel_undoes_the_others() -> None:
    """A connect that fails halfway leaves neither subscriptions nor presence nor a registered user."""
    world = World(ChannelOptions(presence=True, join_leave=True))
    world.recorder.expects_errors = True
    identity = Identity(user="ann", channels=granted("a", "b", "nowhere:c"))
    assert connecting(world, identity)[1] == 3501
    world.tokens.connections.known["u"] = Identity(user="ann", channels=granted("a", "c"))
    world.stops.fail_next("attach", OSError("no link"))
    second = world.open_session()
    assert second.outcome("connect", token="u") == 100
    assert second.session.subscriptions == {}
    assert world.node.hub.statistics().subscriptions == 0
    assert world.presence("a") == set()
    assert len(world.node.registry) == 0
    assert not any(call.startswith("publish_leave") for call in world.stops.passed)


def test_when_deciding_fails_nobody_is_let_in() -> None:
    """A bug or an outage of whoever decides is error 100, and the client is as unknown as before."""
    world = World(allow_anonymous=False)
    world.recorder.expects_errors = True
    world.stops.fail_next("verify", RuntimeError("broken"))
    native = world.open_session()
    assert native.outcome("connect", token="t") == 100
    assert native.outcome("subscribe", channel="news") == 3501
    world.stops.fail_next("verify", RuntimeError("broken"))
    plain = world.plain()
    assert plain.say(type="handshake", token="t")[0]["code"] == 100
    assert plain.say(type="join", room="news")[0]["code"] == 101
    world.tokens.connections.known["t"] = Identity(user="ann")
    assert plain.say(type="handshake", token="t")[0]["type"] == "welcome"


@pytest.mark.parametrize("held", ["verify", "attach", "history", "presence_add"])
def test_a_client_that_goes_while_it_connects_leaves_nothing(held: str) -> None:
    """Wherever its connect was waiting."""

    async def scenario() -> None:
        options = ChannelOptions(
            presence=True, join_leave=True, history_size=5, history_ttl=Seconds(60), force_recovery=True
        )
        world = World(options)
        world.tokens.connections.known["t"] = Identity(user="ann", channels=granted("a", "b"))
        world.stops.hold(held)
        client = world.open_session()
        client.send("connect", token="t")
        await settle()
        client.cut()
        world.stops.release(held)
        await settle()
        assert client.take() == []
        assert len(world.node.registry) == 0
        assert world.node.hub.statistics().subscriptions == 0
        assert world.presence("a") | world.presence("b") == set()
        assert world.recorder.of(SessionConnected) == []
        assert not any(call.startswith("publish_") for call in world.stops.passed)
        assert [event.code for event in world.recorder.of(SessionEnded)] == [3000]
        world.pass_time(60)
        await settle()
        assert world.attached() == 0
        assert len(world.timers) == 0

    asyncio.run(scenario())


def test_publications_during_connect_come_right_after_the_reply() -> None:
    """What arrives while a second channel is still being entered is held for the first."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        world.tokens.connections.known["t"] = Identity(user="ann", channels=granted("a", "b"))
        world.publish("a", "before")
        run(world.node.attachments.attach("a"))
        world.stops.hold("attach")
        client = world.open_session()
        client.send("connect", token="t")
        await settle()
        world.publish("a", "meanwhile")
        assert client.take() == []
        world.stops.release("attach")
        await settle()
        world.publish("a", "after")
        reply, *pushes = client.take()
        assert reply["connect"]["subs"]["a"]["offset"] == 1
        assert [push["push"]["pub"]["data"] for push in pushes] == ["meanwhile", "after"]

    asyncio.run(scenario())


# --- the plain protocol's way in


def test_plain_clients_become_anonymous_by_themselves() -> None:
    """Where that is allowed, the first message that needs somebody makes them nobody."""
    world = World(ANYBODY)
    client = world.plain()
    assert client.say(type="join", room="news", id=1) == [{"type": "joined", "id": 1, "room": "news"}]
    assert client.session.user == ""
    assert len(world.recorder.of(SessionConnected)) == 1
    assert client.say(type="handshake", user="ann", id=2)[0]["code"] == 103
    assert client.ended == 0


def test_plain_clients_that_may_not_be_anonymous_are_told() -> None:
    """Each time, and a handshake still helps."""
    world = World(ANYBODY, allow_anonymous=False)
    world.tokens.connections.known["t"] = Identity(user="ann")
    client = world.plain()
    for _ in range(2):
        assert client.say(type="join", room="news")[0]["code"] == 101
    assert client.say(type="handshake", token="t")[0]["type"] == "welcome"
    assert client.say(type="join", room="news")[0]["type"] == "joined"


def test_plain_clients_may_retry_a_token_that_expired() -> None:
    """An error does not make their connection useless, but a forged token ends it."""
    world = World(allow_anonymous=False)
    world.tokens.connections.known |= {"old": TokenExpired("exp"), "new": Identity(user="ann")}
    client = world.plain()
    assert client.say(type="handshake", token="old")[0]["code"] == 109
    assert client.say(type="handshake", token="new")[0]["type"] == "welcome"
    forger = world.plain()
    assert forger.say(type="handshake", token="forged") == []
    assert forger.ended == 3500


def test_plain_clients_may_ping_and_err_before_they_are_somebody() -> None:
    """Neither needs to know who they are, and neither makes them anonymous."""
    world = World()
    client = world.plain()
    assert client.say(type="ping", id=1) == [{"type": "pong", "id": 1}]
    assert client.say(type="join")[0]["code"] == 107
    assert client.say(type="dance")[0]["code"] == 104
    assert world.recorder.of(SessionConnected) == []
    assert client.say(type="handshake", user="ann")[0]["type"] == "welcome"


# --- refresh


def expiring(world: World, **identity: Any) -> Client:
    return world.connect("ann", expire_at_unix_s=UNIX_S + 60, client_refresh=True, **identity)


def test_a_refresh_brings_a_later_end() -> None:
    """The answer says when; the old end is forgotten."""
    world = World(ping_interval=Seconds(0))
    client = expiring(world)
    world.tokens.connections.known["new"] = Identity(user="ann", expire_at_unix_s=UNIX_S + 600, client_refresh=True)
    assert client.ask("refresh", token="new") == {
        "client": client.id,
        "version": "Beaconfire 1.2.3",
        "expires": True,
        "ttl": 600,
    }
    world.pass_time(600, step_s=5)
    assert client.ended == 0
    world.pass_time(30, step_s=5)
    assert client.ended == 3005


def test_a_refresh_may_end_the_expiry() -> None:
    """With a token that never expires there is nothing to watch."""
    world = World(ping_interval=Seconds(0))
    client = expiring(world)
    world.tokens.connections.known["forever"] = Identity(user="ann")
    assert client.ask("refresh", token="forever") == {"client": client.id, "version": "Beaconfire 1.2.3"}
    world.pass_time(3600, step_s=60)
    assert client.ended == 0


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (TokenExpired("exp"), 3005),
        (Identity(user="ann", expire_at_unix_s=UNIX_S - 1, client_refresh=True), 3005),
        (Identity(user="bob"), 3500),
        (None, 3500),
        (Identity(user="ann", channels=granted("a", "b")), 3010),
        (Identity(user="ann"), 3010),
        (Identity(user="ann", channels=granted("b")), 3010),
        (Identity(user="ann", channels=granted("a")), 0),
    ],
)
def test_what_a_refresh_may_bring(answer: Identity | Exception | None, code: int) -> None:
    """The same user with the same server-side channels, not expired (section 8)."""
    world = World()
    client = expiring(world, channels=granted("a"))
    if answer is not None:
        world.tokens.connections.known["new"] = answer
    assert client.outcome("refresh", token="new") == code


def test_only_expiring_clients_with_a_token_refresh() -> None:
    """An empty token, or a connection that does not expire: 3501."""
    assert expiring(World()).outcome("refresh", token="") == 3501
    world = World()
    assert world.connect("ann").outcome("refresh", token="ann") == 3501


def test_an_outage_of_the_keys_does_not_take_users_down() -> None:
    """A refresh that cannot be verified just now is a temporary error."""
    world = World()
    client = expiring(world)
    world.tokens.connections.known["new"] = TokenUnverifiable("no keys")
    reply = client.reply("refresh", token="new")
    assert (reply["error"]["code"], reply["error"]["temporary"]) == (100, True)
    assert client.ended == 0


def test_a_refresh_changes_what_others_see() -> None:
    """Its info is in what the client publishes from then on."""
    world = World()
    client = expiring(world, info=Raw(b'"old"'))
    client.ask("subscribe", channel="news")
    world.tokens.connections.known["new"] = Identity(
        user="ann", info=Raw(b'"new"'), expire_at_unix_s=UNIX_S + 600, client_refresh=True
    )
    client.ask("refresh", token="new")
    client.send("publish", channel="news", data=1)
    [push] = [message["push"] for message in client.take() if "push" in message]
    assert push["pub"]["info"]["conn_info"] == "new"


def test_a_refresh_changes_presence_and_the_leave() -> None:
    """At once. A token that says nothing about info leaves it as it is: it only prolongs the connection."""
    world = World(VISIBLE)
    witness = world.connect("bob", "news")
    client = expiring(world, info=Raw(b'"old"'))
    client.ask("subscribe", channel="news")

    def refresh(token: str, info: Raw) -> Any:
        world.tokens.connections.known[token] = Identity("ann", info, UNIX_S + 600, client_refresh=True)
        client.ask("refresh", token=token)
        return witness.ask("presence", channel="news")["presence"][client.id].get("conn_info")

    assert refresh("new", Raw(b'"new"')) == "new"
    assert refresh("longer", Raw()) == "new"
    witness.take()
    client.cut()
    assert [push["leave"]["info"].get("conn_info") for push in witness.take_pushes()] == ["new"]


# --- the others


@pytest.mark.parametrize(("method", "code"), [("", 108), ("echo", 108), ("ns:echo", 104)])
def test_rpc_needs_a_handler(method: str, code: int) -> None:
    """And there is none."""
    assert World().connect().outcome("rpc", method=method, data=1) == code


def test_send_needs_a_handler() -> None:
    """Since it has no reply, the session ends with 3508."""
    client = World().connect()
    client.send_text('{"send":{"data":1}}')
    assert client.ended == 3508


@pytest.mark.parametrize("traits", [SessionTraits(), SessionTraits(app_pings=False)])
def test_ping_is_no_native_command(traits: SessionTraits) -> None:
    """3501 (section 5, rule 3), also for clients with the transport's pings."""
    client = World().open_session(traits)
    client.ask("connect")
    assert client.outcome("ping") == 3501


def test_reasons_are_told_on_request_only() -> None:
    """They help whoever debugs, and attackers as well."""
    for debug in (False, True):
        world = World(debug_reasons=debug)
        client = world.open_session()
        client.send("connect", token="forged")
        assert client.transport.closed is not None
        code, reason = client.transport.closed
        assert code == 3500
        assert ("no such token" in reason) is debug
        assert reason.startswith("invalid token")
        error = world.connect("ann").reply("rpc")["error"]["message"]
        assert ("handler" in error) is debug


def test_failures_say_what_they_are() -> None:
    """Both kinds carry their code and the detail in their text."""
    assert str(CommandError(BAD_REQUEST, "x is y")) == "107 bad request: x is y"
    assert str(Disconnect(BAD_PROTOCOL)) == "3501 bad request"
