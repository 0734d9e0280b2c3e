"""Entering and leaving channels: sections 8, 9, 10 and 14 of the protocol reference."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import pytest
from msgspec import Raw

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.model.events import RecoveryFinished, Subscribed, Unsubscribed
from beaconfire.model.grants import SubscriptionGrant, SubscriptionOverride
from beaconfire.node.cluster import Selector, SubscribeSessions, UnsubscribeSessions
from beaconfire.policy.tokens import TokenExpired
from tests.unit.kit import OPEN, VISIBLE, Client, World, run, settle

UNIX_S = 1_700_000_000
CLOSED = ChannelOptions()
HISTORY: dict[str, Any] = {"history_size": 10, "history_ttl": Seconds(300)}
SOCIAL = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_presence_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
)
SLOW = ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True, force_recovery=True, **HISTORY)


def kept(mode: Literal["stream", "cache"] = "stream", **options: Any) -> ChannelOptions:
    return ChannelOptions(
        allow_subscribe_for_client=True, force_recovery_mode=mode, **{"force_recovery": True, **HISTORY, **options}
    )


# --- the order of checks (section 9)


def test_an_empty_channel_ends_the_session() -> None:
    """With 3501, before anything else is looked at."""
    assert World().connect("ann").outcome("subscribe", channel="", type=7) == 3501


LONG = "x" * 256
FULL = ("a", "b")
ORDER: list[tuple[str, dict[str, Any], int]] = [
    ("too long, before already subscribed", {"channel": LONG}, 107),
    ("already subscribed, before the limit", {"channel": "a"}, 105),
    ("the limit, before an unknown namespace", {"channel": "nowhere:x"}, 106),
]


@pytest.mark.parametrize(("what", "request_", "code"), ORDER, ids=[what for what, _, _ in ORDER])
def test_checks_of_a_full_session_come_in_order(what: str, request_: dict[str, Any], code: int) -> None:
    """Each request fails every later check as well."""
    world = World(OPEN, channel_limit=2)
    client = world.connect("ann", *FULL)
    assert client.outcome("subscribe", **request_) == code


NEXT: list[tuple[str, dict[str, Any], int]] = [
    ("unknown namespace, before the name", {"channel": "nowhere:naïve"}, 102),
    ("not ASCII, before the type", {"channel": "naïve", "type": 1}, 107),
    ("type, before the private prefix", {"channel": "$x", "type": 1}, 103),
    ("every type but streams", {"channel": "news", "type": 4}, 103),
    ("a tags filter is not allowed", {"channel": "news", "tf": {"key": "a", "cmp": "eq", "val": "b"}}, 107),
    ("an unknown delta type", {"channel": "news", "delta": "xdelta"}, 3501),
    ("private without a token", {"channel": "$x"}, 103),
    ("private with an expired token", {"channel": "$x", "token": "old"}, 109),
    ("an expired token", {"channel": "news", "token": "old"}, 109),
    ("an invalid token", {"channel": "news", "token": "forged"}, 103),
    ("a token of another channel", {"channel": "news", "token": "for sport"}, 3500),
    ("a token of another user", {"channel": "news", "token": "of bob"}, 3500),
    ("a token of another connection", {"channel": "news", "token": "of another"}, 3500),
    ("a token whose own time is up", {"channel": "news", "token": "late"}, 109),
    ("no token and no permission", {"channel": "closed:x"}, 103),
    ("a token instead of a permission", {"channel": "closed:x", "token": "for closed:x"}, 0),
    ("fossil deltas are known and not offered", {"channel": "news", "delta": "fossil"}, 0),
]


def guarded() -> tuple[World, Client]:
    world = World(OPEN, {"closed": CLOSED})
    world.tokens.subscriptions.known["old"] = TokenExpired("exp")
    world.tokens.let_subscribe("for sport", "ann", "sport")
    world.tokens.let_subscribe("of bob", "bob", "news")
    world.tokens.let_subscribe("of another", "ann", "news", client="somebody else")
    world.tokens.let_subscribe("late", "ann", "news", expire_at_unix_s=float(UNIX_S), client_refresh=True)
    world.tokens.let_subscribe("for closed:x", "ann", "closed:x")
    return world, world.connect("ann")


@pytest.mark.parametrize(("what", "request_", "code"), NEXT, ids=[what for what, _, _ in NEXT])
def test_checks_of_a_subscription_come_in_order(what: str, request_: dict[str, Any], code: int) -> None:
    """Each with its own outcome, and after a refusal nothing is left of the subscription."""
    world, client = guarded()
    assert client.outcome("subscribe", **request_) == code
    assert set(client.session.subscriptions) == ({request_["channel"]} if code == 0 else set())
    assert world.node.hub.statistics().subscriptions == (0 if code else 1)


def test_limits_are_exact_and_counted() -> None:
    """255 bytes are no error, 256 are; the number of channels may reach its limit."""
    world = World(channel_limit=2)
    client = world.connect("ann")
    assert client.outcome("subscribe", channel="x" * 255) == 0
    assert client.outcome("subscribe", channel="x" * 256) == 107
    assert client.outcome("subscribe", channel="b") == 0
    assert client.outcome("subscribe", channel="c") == 106
    assert world.recorder.limits() == ["channel_names.max_length", "client.channel_limit"]
    client.ask("unsubscribe", channel="b")
    assert client.outcome("subscribe", channel="c") == 0


def test_server_side_channels_count_as_subscribed() -> None:
    """Subscribing to one of them again is error 105."""
    world = World()
    client = world.connect("ann", channels={"news": SubscriptionGrant()})
    assert client.outcome("subscribe", channel="news") == 105


def test_private_channels_need_a_token_even_in_insecure_mode() -> None:
    """While everything else is open there."""
    client = World(CLOSED, insecure=True).connect()
    assert client.outcome("subscribe", channel="$x") == 103
    assert client.outcome("subscribe", channel="x") == 0


def test_names_may_be_configured() -> None:
    """Length and symbols."""
    world = World(names=ChannelNameOptions(max_length=5, private_prefix="!"))
    client = world.connect("ann")
    assert client.outcome("subscribe", channel="123456") == 107
    assert client.outcome("subscribe", channel="!x") == 103
    assert client.outcome("subscribe", channel="$x") == 0


# --- the result and effective options


def test_a_simple_subscription_has_an_empty_result() -> None:
    """No position, no expiry, no data: nothing but `{}`."""
    assert World().connect("ann").ask("subscribe", channel="news") == {}


def test_the_tokens_data_and_lifetime_are_in_the_result() -> None:
    """In whole seconds of at most a year; data as it is."""
    world = World(CLOSED)
    client = world.connect("ann")
    for channel, expire_in_s, ttl in (("a", 60.5, 60), ("b", 0.2, 1), ("c", 10.0**9, 365 * 86400)):
        world.tokens.let_subscribe(
            channel, "ann", channel, expire_at_unix_s=UNIX_S + expire_in_s, client_refresh=True, data=Raw(b'{"a":1}')
        )
        result = client.ask("subscribe", channel=channel, token=channel)
        assert result == {"expires": True, "ttl": ttl, "data": {"a": 1}}


@pytest.mark.parametrize(
    ("options", "override", "request_", "expected"),
    [
        ({}, None, {}, ""),
        ({}, None, {"positioned": True, "recoverable": True}, ""),
        ({"allow_positioning": True}, None, {}, ""),
        ({"allow_positioning": True}, None, {"positioned": True}, "positioned"),
        ({"allow_positioning": True}, None, {"recoverable": True}, ""),
        ({"allow_recovery": True}, None, {"recoverable": True}, "positioned recoverable"),
        ({"allow_recovery": True}, None, {"positioned": True}, ""),
        ({"allow_history_for_client": True}, None, {"positioned": True}, "positioned"),
        ({"allow_history_for_subscriber": True}, None, {"recoverable": True}, "positioned recoverable"),
        ({"allow_history_for_anonymous": True}, None, {"recoverable": True}, ""),
        ({"force_positioning": True}, None, {}, "positioned"),
        ({"force_recovery": True}, None, {}, "positioned recoverable"),
        ({"force_recovery": True}, SubscriptionOverride(force_recovery=False), {}, ""),
        ({"force_positioning": True}, SubscriptionOverride(force_positioning=False), {}, ""),
        ({}, SubscriptionOverride(force_recovery=True), {}, "positioned recoverable"),
        ({}, SubscriptionOverride(force_positioning=True), {}, "positioned"),
        ({"force_recovery": True}, SubscriptionOverride(presence=True), {}, "positioned recoverable"),
    ],
)
def test_positioning_and_recovery(
    options: dict[str, Any], override: SubscriptionOverride | None, request_: dict[str, bool], expected: str
) -> None:
    """By force, or by wish and leave, or by wish and history access; a token may override what is forced."""
    world = World(ChannelOptions(**{**HISTORY, **options}))
    world.tokens.let_subscribe("t", "ann", "news", override=override)
    result = world.connect("ann").ask("subscribe", channel="news", token="t", **request_)
    assert " ".join(name for name in ("positioned", "recoverable") if result.get(name)) == expected
    if expected:
        assert result["epoch"] == "epoch1"
    else:
        assert result == {}


def test_without_history_there_is_no_position() -> None:
    """Whatever is forced or wished: there is nothing to count with."""
    world = World(ChannelOptions(allow_subscribe_for_client=True, force_recovery=True, force_positioning=True))
    assert world.connect("ann").ask("subscribe", channel="news") == {}


@pytest.mark.parametrize(
    ("options", "override", "wish", "hears"),
    [
        ({"join_leave": True}, None, True, False),
        ({"join_leave": True, "allow_presence_for_client": True}, None, True, True),
        ({"join_leave": True, "allow_presence_for_subscriber": True}, None, True, True),
        ({"join_leave": True, "allow_presence_for_client": True}, None, False, False),
        ({"join_leave": True, "force_push_join_leave": True}, None, False, True),
        ({"force_push_join_leave": True, "allow_presence_for_client": True}, None, True, False),
        ({"join_leave": True}, SubscriptionOverride(force_push_join_leave=True), False, True),
        ({"force_push_join_leave": True}, SubscriptionOverride(join_leave=True), False, True),
        ({"join_leave": True, "force_push_join_leave": True}, SubscriptionOverride(join_leave=False), True, False),
    ],
)
def test_who_hears_of_others(
    options: dict[str, Any], override: SubscriptionOverride | None, wish: bool, hears: bool
) -> None:
    """Where coming and going is announced: by force, or by wish with access to presence."""
    world = World(ChannelOptions(**options), {"x": SOCIAL})
    world.tokens.let_subscribe("t", "ann", "news", override=override)
    client = world.connect("ann")
    client.ask("subscribe", channel="news", token="t", join_leave=wish)
    assert client.session.subscriptions["news"].options.receives_join_leave is hears


def test_presence_follows_namespace_and_token() -> None:
    """It begins with the subscription, ends with it, and lasts 2.2 intervals without a refresh."""
    world = World(SOCIAL, {"plain": OPEN})
    client = world.connect("ann", "news", "plain:x")
    assert world.presence("news") == {client.id}
    assert world.presence("plain:x") == set()
    world.tokens.let_subscribe("t", "ann", "plain:y", override=SubscriptionOverride(presence=True))
    client.ask("subscribe", channel="plain:y", token="t")
    assert world.presence("plain:y") == {client.id}
    client.ask("unsubscribe", channel="plain:y")
    assert world.presence("plain:y") == set()
    client.cut()
    assert world.presence("news") == set()


# --- joins and leaves


def announcements(client: Client) -> list[str]:
    """`join client1` and the like, of the channel news."""
    found = []
    for push in client.take_pushes():
        [kind] = push.keys() - {"channel"}
        found.append(f"{kind} {push[kind]['info']['client']}")
    return found


def test_ones_own_join_comes_after_the_reply() -> None:
    """The subscriber hears itself come, and never before it knows that it is in."""
    world = World(SOCIAL)
    client = world.connect("ann")
    number = client.send("subscribe", channel="news")
    reply, push = client.take()
    assert reply == {"id": number, "subscribe": {}}
    assert push == {"push": {"channel": "news", "join": {"info": {"user": "ann", "client": client.id}}}}


def test_others_hear_joins_and_leaves() -> None:
    """Once each, whether one leaves by command, by cut, or because the server ends the session."""
    world = World(SOCIAL)
    witness = world.connect("bob", "news")
    ways: list[Callable[[Client], object]] = [
        lambda client: client.ask("unsubscribe", channel="news"),
        lambda client: client.cut(),
        lambda client: client.send_text("garbage"),
    ]
    for leave in ways:
        client = world.connect("ann", "news")
        assert announcements(witness) == [f"join {client.id}"]
        leave(client)
        assert announcements(witness) == [f"leave {client.id}"]


def test_one_who_left_does_not_hear_it() -> None:
    """Nothing of the channel comes after the unsubscribe reply."""
    world = World(SOCIAL)
    client = world.connect("ann", "news")
    number = client.send("unsubscribe", channel="news")
    assert client.take() == [{"id": number, "unsubscribe": {}}]


def test_no_leave_without_a_join() -> None:
    """A subscription that failed was never announced, so its end is not either."""
    world = World(SOCIAL)
    world.recorder.expects_errors = True
    witness = world.connect("bob", "news")
    client = world.connect("ann")
    world.stops.fail_next("presence_add", OSError("no link"))
    assert client.outcome("subscribe", channel="news") == 100
    assert announcements(witness) == []
    assert world.presence("news") == {witness.id}
    assert client.outcome("subscribe", channel="news") == 0


def test_infos_of_connection_and_subscription_are_shown() -> None:
    """In joins and leaves, presence and what one publishes."""
    world = World(SOCIAL)
    witness = world.connect("bob", "news")
    client = world.connect("ann", info=Raw(b'"conn"'))
    world.tokens.let_subscribe("t", "ann", "news", info=Raw(b'"chan"'))
    client.ask("subscribe", channel="news", token="t")
    expected = {"user": "ann", "client": client.id, "conn_info": "conn", "chan_info": "chan"}
    assert [push["join"]["info"] for push in witness.take_pushes()] == [expected]
    assert witness.ask("presence", channel="news")["presence"][client.id] == expected


# --- unsubscribe


def test_unsubscribing_always_succeeds() -> None:
    """Whether one is in, was never in, or the namespace does not exist."""
    client = World().connect("ann", "news")
    for channel in ("news", "news", "other", "nowhere:x", LONG):
        assert client.ask("unsubscribe", channel=channel) == {}
    assert client.session.subscriptions == {}
    assert client.outcome("unsubscribe", channel="") == 3501


def test_after_leaving_one_may_come_back() -> None:
    """A new subscription, with nothing of the old one."""
    world = World()
    client = world.connect("ann", "news")
    client.ask("unsubscribe", channel="news")
    world.publish("news", "missed")
    assert client.take() == []
    assert client.outcome("subscribe", channel="news") == 0
    world.publish("news", "heard")
    assert [push["pub"]["data"] for push in client.take_pushes()] == ["heard"]


def test_coming_and_going_is_reported() -> None:
    """With the code of what ended it; who never came does not go."""
    world = World()
    world.recorder.expects_errors = True
    world.stops.fail_next("attach", OSError("no link"))
    assert world.connect("bob").outcome("subscribe", channel="d") == 100
    client = world.connect("ann", "a", "b", "c")
    client.ask("unsubscribe", channel="a")
    world.tell(UnsubscribeSessions(Selector(user="ann"), "b"))
    client.cut()
    assert [event.channel for event in world.recorder.of(Subscribed)] == ["a", "b", "c"]
    assert [(event.channel, event.code) for event in world.recorder.of(Unsubscribed)] == [
        ("a", 0),
        ("b", 2000),
        ("c", 0),
    ]


# --- recovery (section 10)


def position(world: World, channel: str = "news") -> tuple[int, str]:
    page = run(world.node.channels.history(channel, world.namespaces.resolve(channel), 0))
    return page.position


def recover(world: World, offset: int, epoch: str, **fields: Any) -> dict[str, Any]:
    client = world.connect("ann")
    return client.ask("subscribe", channel="news", recover=True, offset=offset, epoch=epoch, **fields)


STREAM: list[tuple[str, int, str, list[int] | None]] = [
    ("some missed", 3, "epoch1", [4, 5]),
    ("nothing missed", 5, "epoch1", []),
    ("no epoch known", 3, "", [4, 5]),
    ("as far back as history goes", 2, "epoch1", [3, 4, 5]),
    ("further back than history", 1, "epoch1", None),
    ("from before everything", 0, "", None),
    ("another epoch", 3, "other", None),
    ("another epoch at the top", 5, "other", None),
    ("an invalidated state", 0, "_", None),
    ("a position that is not there yet", 6, "epoch1", None),
]


@pytest.mark.parametrize(("what", "offset", "epoch", "missed"), STREAM, ids=[row[0] for row in STREAM])
def test_recovery_of_a_stream(what: str, offset: int, epoch: str, missed: list[int] | None) -> None:
    """All that was missed and the offset one came with, or the honest top and nothing else."""
    world = World(kept(history_size=3))
    world.publish("news", 1, 2, 3, 4, 5)
    expected: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": "epoch1", "was_recovering": True}
    if missed is None:
        expected |= {"offset": 5}
    else:
        expected |= {"recovered": True, "offset": offset}
        if missed:
            expected["publications"] = [{"data": number, "offset": number} for number in missed]
    assert recover(world, offset, epoch) == expected
    [event] = world.recorder.of(RecoveryFinished)
    assert (event.recovered, event.publications) == (missed is not None, len(missed or []))


def test_recovery_of_a_stream_that_never_was() -> None:
    """Offset 0 is recovered there, with or without its epoch: nothing was missed."""
    world = World(kept())
    assert recover(world, 0, "").get("recovered") is True
    assert recover(world, 0, "epoch1").get("recovered") is True
    assert "recovered" not in recover(world, 0, "_")


def test_the_first_publication_tells_its_epoch() -> None:
    """So that who subscribed before there was a stream can adopt it; later ones need not."""
    world = World(kept())
    assert recover(world, 0, "")["epoch"] == "epoch1"
    client = world.connect("bob", "news")
    world.publish("news", 1, 2)
    assert [push["pub"] for push in client.take_pushes()] == [
        {"data": 1, "offset": 1, "epoch": "epoch1"},
        {"data": 2, "offset": 2},
    ]


def test_recovery_is_bounded() -> None:
    """With more missed than may be recovered at once, recovered is false; exactly the limit is fine."""
    world = World(kept(), recovery_max_publication_limit=3)
    world.publish("news", 1, 2, 3, 4, 5)
    assert len(recover(world, 2, "epoch1")["publications"]) == 3
    assert world.recorder.limits() == []
    assert "recovered" not in recover(world, 1, "epoch1")
    assert world.recorder.limits() == ["client.recovery_max_publication_limit"]


def test_unrecovered_positions_are_error_112_on_request() -> None:
    """Flag bit 2 asks for the error instead of recovered=false; other bits and successes do not change."""
    world = World(kept())
    world.publish("news", 1, 2)
    client = world.connect("ann")
    lost = {"channel": "news", "recover": True, "offset": 1, "epoch": "other"}
    assert client.outcome("subscribe", **lost, flag=2) == 112
    assert client.outcome("subscribe", **lost, flag=3) == 112
    assert client.session.subscriptions == {}
    assert client.ask("subscribe", **lost, flag=1)["was_recovering"] is True
    client.ask("unsubscribe", channel="news")
    assert client.ask("subscribe", **{**lost, "epoch": "epoch1"}, flag=2)["recovered"] is True


def test_who_does_not_recover_gets_the_top() -> None:
    """And no publications."""
    world = World(kept())
    world.publish("news", 1, 2)
    result = world.connect("ann").ask("subscribe", channel="news", offset=1, epoch="epoch1")
    assert result == {"recoverable": True, "positioned": True, "epoch": "epoch1", "offset": 2}


@pytest.mark.parametrize(
    "options", [OPEN, ChannelOptions(allow_subscribe_for_client=True, force_positioning=True, **HISTORY)]
)
def test_where_nothing_can_be_recovered_the_answer_is_honest(options: ChannelOptions) -> None:
    """Who asked what it missed hears that it was not recovered, not silence."""
    world = World(options)
    world.publish("news", 1)
    result = recover(world, 0, "epoch1")
    assert result["was_recovering"] is True
    assert "recovered" not in result
    [joined] = world.connect_plain("bob").say(type="join", room="news", since={"offset": 0, "epoch": "epoch1"})
    assert (joined["recovered"], joined["messages"]) == (False, [])


def test_live_goes_on_after_recovery() -> None:
    """The server's own position is the top, whatever was recovered."""
    world = World(kept())
    world.publish("news", 1, 2, 3)
    client = world.connect("ann")
    client.ask("subscribe", channel="news", recover=True, offset=1, epoch="epoch1")
    world.publish("news", 4)
    assert [push["pub"]["offset"] for push in client.take_pushes()] == [4]
    assert client.session.subscriptions["news"].position == (4, "epoch1")


CACHE: list[tuple[str, int, str, list[int] | None]] = [
    ("a new subscriber", 0, "", [3]),
    ("some missed", 1, "epoch1", [3]),
    ("nothing missed", 3, "epoch1", []),
    ("another epoch", 3, "other", [3]),
]


@pytest.mark.parametrize(("what", "offset", "epoch", "given"), CACHE, ids=[row[0] for row in CACHE])
def test_recovery_of_a_cache(what: str, offset: int, epoch: str, given: list[int]) -> None:
    """The latest publication, unless one has it."""
    world = World(kept("cache"))
    world.publish("news", 1, 2, 3)
    result = recover(world, offset, epoch)
    assert (result["recovered"], result["offset"] if offset else result.get("offset", 0)) == (True, offset)
    assert [publication["offset"] for publication in result.get("publications", [])] == given


@pytest.mark.parametrize(("offset", "epoch", "recovered"), [(2, "epoch1", True), (1, "epoch1", False), (0, "", False)])
def test_recovery_of_an_empty_cache(offset: int, epoch: str, recovered: bool) -> None:
    """Where the latest is gone, only somebody at the top has missed nothing."""
    world = World(kept("cache"))
    world.publish("news", 1, 2)
    run(world.node.channels.remove_history("news", world.namespaces.resolve("news")))
    result = recover(world, offset, epoch)
    assert result.get("recovered", False) is recovered
    assert (result["offset"], "publications" in result) == (2, False)


def test_a_cache_may_be_given_unasked() -> None:
    """With auto_cache_recover every new subscriber gets the latest, and nobody was recovering."""
    world = World(kept("cache", auto_cache_recover=True))
    client = world.connect("ann")
    empty = client.ask("subscribe", channel="news", flag=2)
    assert "publications" not in empty
    assert "was_recovering" not in empty
    world.publish("news", 1, 2)
    full = world.connect("bob").ask("subscribe", channel="news")
    assert full["publications"] == [{"data": 2, "offset": 2}]
    assert full["recovered"] is True
    assert "was_recovering" not in full
    assert "publications" not in World(kept("cache")).connect("ann").ask("subscribe", channel="news")


# --- continuity


def lose_one(world: World, channel: str = "news") -> None:
    """A publication that is stored but never announced here."""
    run(world.memory.broker.detach(channel))
    world.publish(channel, "lost")
    run(world.memory.broker.attach(channel))
    world.publish(channel, "after")


def test_a_gap_takes_client_side_subscribers_out() -> None:
    """With 2500: they come back by themselves, with their position, and miss nothing."""
    world = World(kept())
    client = world.connect("ann", "news")
    lose_one(world)
    assert client.take_pushes() == [{"channel": "news", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}]
    assert client.ended == 0
    result = client.ask("subscribe", channel="news", recover=True, offset=0, epoch="epoch1")
    assert [publication["data"] for publication in result["publications"]] == ["lost", "after"]


def test_a_gap_ends_sessions_with_server_side_subscriptions() -> None:
    """With 3010: the client did not subscribe, so it can only come back altogether."""
    world = World(kept())
    client = world.connect("ann", channels={"news": SubscriptionGrant()})
    other = world.connect("bob", "other")
    lose_one(world)
    world.turn()
    assert client.ended == 3010
    assert other.ended == 0


def test_a_lost_link_takes_out_the_positioned() -> None:
    """Of all channels or of those named; who does not watch a position stays."""
    world = World(OPEN, {"kept": kept()})
    client = world.connect("ann", "kept:a", "kept:b", "free")
    served = world.connect("bob", channels={"kept:b": SubscriptionGrant(), "kept:c": SubscriptionGrant()})
    world.node.listener.on_link_lost(["kept:a", "free", "unknown"])
    assert set(client.session.subscriptions) == {"kept:b", "free"}
    assert served.ended == 0
    world.node.listener.on_link_lost(None)
    assert set(client.session.subscriptions) == {"free"}
    assert [push["unsubscribe"]["code"] for push in client.take_pushes()] == [2500, 2500]
    assert served.ended == 3010


def test_a_lost_link_while_catching_up_ends_with_3010() -> None:
    """What was missed cannot be told, so the reply never comes (section 10, merging)."""

    async def scenario() -> None:
        world = World(SLOW)
        client = world.connect("ann")
        world.stops.hold("history")
        client.send("subscribe", channel="news")
        await settle()
        world.node.listener.on_link_lost(None)
        assert client.ended == 0
        world.stops.release("history")
        await settle()
        assert client.take() == []
        assert client.ended == 3010
        assert world.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


def test_a_hole_in_what_was_held_ends_with_3010() -> None:
    """Two publications come while history is read, and the one between them never does."""

    async def scenario() -> None:
        world = World(SLOW)
        client = world.connect("ann")
        world.stops.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        world.publish("news", 1)
        lose_one(world)
        world.turn()
        world.stops.release("presence_add")
        await settle()
        assert client.ended == 3010
        assert not any(call.startswith("publish_") for call in world.stops.passed)

    asyncio.run(scenario())


@pytest.mark.parametrize("held", ["attach", "history", "presence_add"])
def test_publications_while_catching_up_come_once(held: str) -> None:
    """Either in the reply or right after it, in order, wherever the subscription was waiting."""

    async def scenario() -> None:
        world = World(SLOW)
        world.publish("news", 1, 2)
        if held != "attach":
            run(world.node.attachments.attach("news"))
        client = world.connect("ann")
        world.stops.hold(held)
        client.send("subscribe", channel="news", recover=True, offset=1, epoch="epoch1")
        await settle()
        world.publish("news", 3)
        world.turn()
        world.publish("news", 4)
        assert client.take() == []
        world.stops.release(held)
        await settle()
        world.publish("news", 5)
        reply, *pushes = client.take()
        publications = reply["subscribe"]["publications"] + [push["push"]["pub"] for push in pushes]
        assert [publication["data"] for publication in publications] == [2, 3, 4, 5]
        assert reply["subscribe"]["recovered"] is True

    asyncio.run(scenario())


# --- being interrupted


@pytest.mark.parametrize("held", ["verify", "attach", "history", "presence_add"])
def test_unsubscribing_waits_for_the_subscription(held: str) -> None:
    """Sent in the same breath, the replies come in order and the end is: not subscribed."""

    async def scenario() -> None:
        world = World(SLOW)
        client = world.connect("ann")
        world.tokens.let_subscribe("t", "ann", "news")
        world.stops.hold(held)
        first = client.send("subscribe", channel="news", token="t")
        second = client.send("unsubscribe", channel="news")
        await settle()
        assert client.take() == []
        world.stops.release(held)
        await settle()
        assert [message["id"] for message in client.take() if "id" in message] == [first, second]
        assert client.session.subscriptions == {}
        assert world.presence("news") == set()
        leaves = [call for call in world.stops.passed if call.startswith("publish_")]
        assert leaves == [f"publish_join news {client.id}", f"publish_leave news {client.id}"]

    asyncio.run(scenario())


@pytest.mark.parametrize("held", ["verify", "attach", "history", "presence_add"])
def test_a_session_that_ends_while_it_subscribes_leaves_nothing(held: str) -> None:
    """No subscription, no presence, no announcement, no attachment, no timer."""

    async def scenario() -> None:
        world = World(SLOW)
        client = world.connect("ann")
        world.tokens.let_subscribe("t", "ann", "news", expire_at_unix_s=UNIX_S + 60.0)
        world.stops.hold(held)
        client.send("subscribe", channel="news", token="t")
        client.send("subscribe", channel="other")
        await settle()
        client.cut()
        world.stops.release(held)
        await settle()
        assert world.node.hub.statistics().subscriptions == 0
        assert client.session.subscriptions == {}
        assert world.presence("news") == set()
        assert client.take() == []
        assert not any(call.startswith("publish_") for call in world.stops.passed)
        if held == "verify":
            assert "attach news" not in world.stops.passed, "nothing is begun after the end"
        world.pass_time(60)
        await settle()
        assert world.attached() == 0
        assert len(world.timers) == 0
        assert world.recorder.of(Subscribed) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("held", ["attach", "history", "presence_add"])
def test_the_server_may_unsubscribe_meanwhile(held: str) -> None:
    """Then the subscription fails, and the client is not in."""

    async def scenario() -> None:
        world = World(SLOW)
        client = world.connect("ann")
        world.stops.hold(held)
        number = client.send("subscribe", channel="news")
        await settle()
        world.tell(UnsubscribeSessions(Selector(user="ann"), "news"))
        world.stops.release(held)
        await settle()
        [error] = [message for message in client.take() if message.get("id") == number]
        assert error["error"]["code"] == 103
        assert client.session.subscriptions == {}
        assert world.presence("news") == set()
        assert client.outcome("subscribe", channel="news") == 0

    asyncio.run(scenario())


def test_the_server_may_subscribe_while_a_token_is_verified() -> None:
    """Then the client's own wish finds that it is in already: never two at once."""

    async def scenario() -> None:
        world = World(SLOW)
        client = world.connect("ann")
        world.tokens.let_subscribe("t", "ann", "news")
        world.stops.hold("verify")
        number = client.send("subscribe", channel="news", token="t")
        await settle()
        world.tell(SubscribeSessions(Selector(user="ann"), "news"))
        world.stops.release("verify")
        await settle()
        [error] = [message for message in client.take() if message.get("id") == number]
        assert error["error"]["code"] == 105
        assert world.node.hub.statistics().subscriptions == 1
        client.cut()
        assert world.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


def test_the_channel_limit_holds_while_a_token_is_verified() -> None:
    """What came in meanwhile counts."""

    async def scenario() -> None:
        world = World(SLOW, channel_limit=1)
        client = world.connect("ann")
        world.tokens.let_subscribe("t", "ann", "news")
        world.stops.hold("verify")
        number = client.send("subscribe", channel="news", token="t")
        await settle()
        world.tell(SubscribeSessions(Selector(user="ann"), "other"))
        world.stops.release("verify")
        await settle()
        [error] = [message for message in client.take() if message.get("id") == number]
        assert error["error"]["code"] == 106

    asyncio.run(scenario())


def test_presence_that_comes_after_its_removal_is_removed() -> None:
    """A slow store adds what was removed before; but not if the client has come back since."""

    async def scenario() -> None:
        world = World(SLOW)
        client = world.connect("ann")
        let_the_first_add = world.stops.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        world.tell(UnsubscribeSessions(Selector(user="ann"), "news"))
        let_the_second_add = world.stops.hold("presence_add")
        world.tell(SubscribeSessions(Selector(user="ann"), "news"))
        let_the_second_add()
        await settle()
        let_the_first_add()
        await settle()
        assert client.session.subscriptions["news"].options.server_side
        assert world.presence("news") == {client.id}
        client.cut()
        assert world.presence("news") == set()

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["attach", "history", "presence_add"])
def test_a_failing_engine_is_a_temporary_error(method: str) -> None:
    """The client may try again, and then it works."""
    world = World(SLOW)
    world.recorder.expects_errors = True
    client = world.connect("ann")
    world.stops.fail_next(method, OSError("no link"))
    reply = client.reply("subscribe", channel="news")
    assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
    assert world.node.hub.statistics().subscriptions == 0
    assert client.outcome("subscribe", channel="news") == 0


# --- expiry (section 8)


def expiring(world: World, **grant: Any) -> Client:
    client = world.connect("ann")
    world.tokens.let_subscribe(
        "t", "ann", "news", **{"expire_at_unix_s": UNIX_S + 60.0, "client_refresh": True, **grant}
    )
    client.ask("subscribe", channel="news", token="t")
    return client


def quiet(**options: Any) -> World:
    return World(CLOSED, ping_interval=Seconds(0), **options)


@pytest.mark.parametrize("interval", [Seconds(0), Seconds(7), Seconds(27)])
def test_an_expired_subscription_is_taken_out(interval: Seconds) -> None:
    """With 2501 after the grace, however often upkeep runs; the session lives on."""
    world = quiet(presence_update_interval=interval)
    client = expiring(world)
    world.pass_time(84.5)
    assert client.take() == []
    world.pass_time(0.5)
    assert client.take_pushes() == [
        {"channel": "news", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}
    ]
    assert client.ended == 0
    assert world.node.hub.statistics().subscriptions == 0


def test_an_expired_server_side_subscription_ends_the_session() -> None:
    """With 3006: the client cannot make it again by itself."""
    world = quiet()
    client = world.connect("ann")
    world.tell(SubscribeSessions(Selector(user="ann"), "news", expire_at_unix_s=UNIX_S + 60.0))
    world.pass_time(84.5)
    assert client.ended == 0
    world.pass_time(0.5)
    assert client.ended == 3006


def test_a_refreshed_subscription_lives_on() -> None:
    """Until its new end, or for good if it has none."""
    world = quiet()
    client = expiring(world)
    world.tokens.let_subscribe("later", "ann", "news", expire_at_unix_s=UNIX_S + 600.0, client_refresh=True)
    assert client.ask("sub_refresh", channel="news", token="later") == {"expires": True, "ttl": 600}
    world.pass_time(624, step_s=1)
    assert client.take() == []
    world.tokens.let_subscribe("forever", "ann", "news")
    assert client.ask("sub_refresh", channel="news", token="forever") == {}
    world.pass_time(1000, step_s=10)
    assert set(client.session.subscriptions) == {"news"}


def test_a_refreshed_subscription_shows_its_new_info() -> None:
    """In presence at once, in what is published and in the leave; without one in the token the old stays."""
    world = World(VISIBLE)
    witness = world.connect("bob", "news")
    client = world.connect("ann")

    def token(name: str, info: bytes) -> str:
        return world.tokens.let_subscribe(
            name, "ann", "news", info=Raw(info), expire_at_unix_s=UNIX_S + 600.0, client_refresh=True
        )

    def shown() -> Any:
        return witness.ask("presence", channel="news")["presence"][client.id].get("chan_info")

    client.ask("subscribe", channel="news", token=token("first", b'"old"'))
    assert shown() == "old"
    client.ask("sub_refresh", channel="news", token=token("second", b'"new"'))
    assert shown() == "new"
    client.ask("sub_refresh", channel="news", token=token("third", b""))
    assert shown() == "new"
    witness.take()
    client.ask("publish", channel="news", data=1)
    client.ask("unsubscribe", channel="news")
    published, left = witness.take_pushes()
    assert published["pub"]["info"]["chan_info"] == left["leave"]["info"]["chan_info"] == "new"


REFRESHES: list[tuple[str, dict[str, Any], int]] = [
    ("no channel (the session lives: centrifuge-python 0.5 leaves it out)", {"channel": "", "token": "t"}, 107),
    ("not subscribed, before everything else", {"channel": "other", "token": ""}, 103),
    ("does not expire, before the empty token", {"channel": "steady", "token": ""}, 3501),
    ("an empty token", {"channel": "news", "token": ""}, 107),
    ("an expired token", {"channel": "news", "token": "old"}, 3006),
    ("a token whose own time is up", {"channel": "news", "token": "late"}, 3006),
    ("an invalid token", {"channel": "news", "token": "forged"}, 3500),
    ("a token of another channel", {"channel": "news", "token": "for sport"}, 3500),
    ("a token of another user", {"channel": "news", "token": "of bob"}, 3500),
    ("a good token", {"channel": "news", "token": "t"}, 0),
]


@pytest.mark.parametrize(("what", "request_", "code"), REFRESHES, ids=[what for what, _, _ in REFRESHES])
def test_refreshing_a_subscription(what: str, request_: dict[str, Any], code: int) -> None:
    """Each with its own outcome (section 8)."""
    world = quiet()
    client = expiring(world)
    world.tokens.subscriptions.known["old"] = TokenExpired("exp")
    world.tokens.let_subscribe("late", "ann", "news", expire_at_unix_s=float(UNIX_S), client_refresh=True)
    world.tokens.let_subscribe("for sport", "ann", "sport")
    world.tokens.let_subscribe("of bob", "bob", "news")
    world.tokens.let_subscribe("steady", "ann", "steady")
    client.ask("subscribe", channel="steady", token="steady")
    assert client.outcome("sub_refresh", **request_) == code


def test_a_subscription_that_ended_is_not_refreshed() -> None:
    """It was taken out while its new token was being verified."""

    async def scenario() -> None:
        world = quiet()
        client = expiring(world)
        world.stops.hold("verify")
        number = client.send("sub_refresh", channel="news", token="t")
        await settle()
        world.tell(UnsubscribeSessions(Selector(user="ann"), "news"))
        world.stops.release("verify")
        await settle()
        [error] = [message for message in client.take() if message.get("id") == number]
        assert error["error"]["code"] == 103

    asyncio.run(scenario())
