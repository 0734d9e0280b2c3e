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
from tests.unit.kit import OPEN, WITH_PRESENCE, HarnessClient, NodeHarness, run, settle

UNIX_S = 1_700_000_000
CLOSED = ChannelOptions()
HISTORY: dict[str, Any] = {"history_size": 10, "history_ttl": Seconds(300)}
WITH_JOIN_LEAVE = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_presence_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
)
ALL_STEPS = ChannelOptions(
    allow_subscribe_for_client=True, presence=True, join_leave=True, force_recovery=True, **HISTORY
)


def kept(mode: Literal["stream", "cache"] = "stream", **options: Any) -> ChannelOptions:
    return ChannelOptions(
        allow_subscribe_for_client=True, force_recovery_mode=mode, **{"force_recovery": True, **HISTORY, **options}
    )


# --- the order of checks (section 9)


def test_an_empty_channel_ends_the_session() -> None:
    """With 3501, before anything else is looked at."""
    assert NodeHarness().connect("ann").request_code("subscribe", channel="", type=7) == 3501


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
    harness = NodeHarness(OPEN, channel_limit=2)
    client = harness.connect("ann", *FULL)
    assert client.request_code("subscribe", **request_) == code


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


def harness_with_tokens() -> tuple[NodeHarness, HarnessClient]:
    harness = NodeHarness(OPEN, {"closed": CLOSED})
    harness.tokens.subscriptions.known["old"] = TokenExpired("exp")
    harness.tokens.add_subscription("for sport", "ann", "sport")
    harness.tokens.add_subscription("of bob", "bob", "news")
    harness.tokens.add_subscription("of another", "ann", "news", client="somebody else")
    harness.tokens.add_subscription("late", "ann", "news", expire_at_unix_s=float(UNIX_S), client_refresh=True)
    harness.tokens.add_subscription("for closed:x", "ann", "closed:x")
    return harness, harness.connect("ann")


@pytest.mark.parametrize(("what", "request_", "code"), NEXT, ids=[what for what, _, _ in NEXT])
def test_checks_of_a_subscription_come_in_order(what: str, request_: dict[str, Any], code: int) -> None:
    """Each with its own outcome, and after a refusal nothing is left of the subscription."""
    harness, client = harness_with_tokens()
    assert client.request_code("subscribe", **request_) == code
    assert set(client.session.subscriptions) == ({request_["channel"]} if code == 0 else set())
    assert harness.node.hub.statistics().subscriptions == (0 if code else 1)


def test_limits_are_exact_and_counted() -> None:
    """255 bytes are no error, 256 are; the number of channels may reach its limit."""
    harness = NodeHarness(channel_limit=2)
    client = harness.connect("ann")
    assert client.request_code("subscribe", channel="x" * 255) == 0
    assert client.request_code("subscribe", channel="x" * 256) == 107
    assert client.request_code("subscribe", channel="b") == 0
    assert client.request_code("subscribe", channel="c") == 106
    assert harness.recorder.limits() == ["channel_names.max_length", "client.channel_limit"]
    client.request("unsubscribe", channel="b")
    assert client.request_code("subscribe", channel="c") == 0


def test_server_side_channels_count_as_subscribed() -> None:
    """Subscribing to one of them again is error 105."""
    harness = NodeHarness()
    client = harness.connect("ann", channels={"news": SubscriptionGrant()})
    assert client.request_code("subscribe", channel="news") == 105


def test_private_channels_need_a_token_even_in_insecure_mode() -> None:
    """While everything else is open there."""
    client = NodeHarness(CLOSED, insecure=True).connect()
    assert client.request_code("subscribe", channel="$x") == 103
    assert client.request_code("subscribe", channel="x") == 0


def test_names_may_be_configured() -> None:
    """Length and symbols."""
    harness = NodeHarness(names=ChannelNameOptions(max_length=5, private_prefix="!"))
    client = harness.connect("ann")
    assert client.request_code("subscribe", channel="123456") == 107
    assert client.request_code("subscribe", channel="!x") == 103
    assert client.request_code("subscribe", channel="$x") == 0


# --- the result and effective options


def test_a_simple_subscription_has_an_empty_result() -> None:
    """No position, no expiry, no data: nothing but `{}`."""
    assert NodeHarness().connect("ann").request("subscribe", channel="news") == {}


def test_the_tokens_data_and_lifetime_are_in_the_result() -> None:
    """In whole seconds of at most a year; data as it is."""
    harness = NodeHarness(CLOSED)
    client = harness.connect("ann")
    for channel, expire_in_s, ttl in (("a", 60.5, 60), ("b", 0.2, 1), ("c", 10.0**9, 365 * 86400)):
        harness.tokens.add_subscription(
            channel, "ann", channel, expire_at_unix_s=UNIX_S + expire_in_s, client_refresh=True, data=Raw(b'{"a":1}')
        )
        result = client.request("subscribe", channel=channel, token=channel)
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
    harness = NodeHarness(ChannelOptions(**{**HISTORY, **options}))
    harness.tokens.add_subscription("t", "ann", "news", override=override)
    result = harness.connect("ann").request("subscribe", channel="news", token="t", **request_)
    assert " ".join(name for name in ("positioned", "recoverable") if result.get(name)) == expected
    if expected:
        assert result["epoch"] == "epoch1"
    else:
        assert result == {}


def test_without_history_there_is_no_position() -> None:
    """Whatever is forced or wished: there is nothing to count with."""
    harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, force_recovery=True, force_positioning=True))
    assert harness.connect("ann").request("subscribe", channel="news") == {}


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
    harness = NodeHarness(ChannelOptions(**options), {"x": WITH_JOIN_LEAVE})
    harness.tokens.add_subscription("t", "ann", "news", override=override)
    client = harness.connect("ann")
    client.request("subscribe", channel="news", token="t", join_leave=wish)
    assert client.session.subscriptions["news"].options.receives_join_leave is hears


def test_presence_follows_namespace_and_token() -> None:
    """It begins with the subscription, ends with it, and lasts 2.2 intervals without a refresh."""
    harness = NodeHarness(WITH_JOIN_LEAVE, {"plain": OPEN})
    client = harness.connect("ann", "news", "plain:x")
    assert harness.present_clients("news") == {client.id}
    assert harness.present_clients("plain:x") == set()
    harness.tokens.add_subscription("t", "ann", "plain:y", override=SubscriptionOverride(presence=True))
    client.request("subscribe", channel="plain:y", token="t")
    assert harness.present_clients("plain:y") == {client.id}
    client.request("unsubscribe", channel="plain:y")
    assert harness.present_clients("plain:y") == set()
    client.drop_connection()
    assert harness.present_clients("news") == set()


# --- joins and leaves


def announcements(client: HarnessClient) -> list[str]:
    """`join client1` and the like, of the channel news."""
    found = []
    for push in client.receive_pushes():
        [kind] = push.keys() - {"channel"}
        found.append(f"{kind} {push[kind]['info']['client']}")
    return found


def test_ones_own_join_comes_after_the_reply() -> None:
    """The subscriber hears itself come, and never before it knows that it is in."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    client = harness.connect("ann")
    number = client.send("subscribe", channel="news")
    reply, push = client.receive()
    assert reply == {"id": number, "subscribe": {}}
    assert push == {"push": {"channel": "news", "join": {"info": {"user": "ann", "client": client.id}}}}


def test_others_hear_joins_and_leaves() -> None:
    """Once each, whether one leaves by command, by cut, or because the server ends the session."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    witness = harness.connect("bob", "news")
    ways: list[Callable[[HarnessClient], object]] = [
        lambda client: client.request("unsubscribe", channel="news"),
        lambda client: client.drop_connection(),
        lambda client: client.send_text("garbage"),
    ]
    for leave in ways:
        client = harness.connect("ann", "news")
        assert announcements(witness) == [f"join {client.id}"]
        leave(client)
        assert announcements(witness) == [f"leave {client.id}"]


def test_one_who_left_does_not_hear_it() -> None:
    """Nothing of the channel comes after the unsubscribe reply."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    client = harness.connect("ann", "news")
    number = client.send("unsubscribe", channel="news")
    assert client.receive() == [{"id": number, "unsubscribe": {}}]


def test_no_leave_without_a_join() -> None:
    """A subscription that failed was never announced, so its end is not either."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    harness.recorder.expects_errors = True
    witness = harness.connect("bob", "news")
    client = harness.connect("ann")
    harness.calls.fail_next("presence_add", OSError("no link"))
    assert client.request_code("subscribe", channel="news") == 100
    assert announcements(witness) == []
    assert harness.present_clients("news") == {witness.id}
    assert client.request_code("subscribe", channel="news") == 0


def test_infos_of_connection_and_subscription_are_shown() -> None:
    """In joins and leaves, presence and what one publishes."""
    harness = NodeHarness(WITH_JOIN_LEAVE)
    witness = harness.connect("bob", "news")
    client = harness.connect("ann", info=Raw(b'"conn"'))
    harness.tokens.add_subscription("t", "ann", "news", info=Raw(b'"chan"'))
    client.request("subscribe", channel="news", token="t")
    expected = {"user": "ann", "client": client.id, "conn_info": "conn", "chan_info": "chan"}
    assert [push["join"]["info"] for push in witness.receive_pushes()] == [expected]
    assert witness.request("presence", channel="news")["presence"][client.id] == expected


# --- unsubscribe


def test_unsubscribing_always_succeeds() -> None:
    """Whether one is in, was never in, or the namespace does not exist."""
    client = NodeHarness().connect("ann", "news")
    for channel in ("news", "news", "other", "nowhere:x", LONG):
        assert client.request("unsubscribe", channel=channel) == {}
    assert client.session.subscriptions == {}
    assert client.request_code("unsubscribe", channel="") == 3501


def test_after_leaving_one_may_come_back() -> None:
    """A new subscription, with nothing of the old one."""
    harness = NodeHarness()
    client = harness.connect("ann", "news")
    client.request("unsubscribe", channel="news")
    harness.publish("news", "missed")
    assert client.receive() == []
    assert client.request_code("subscribe", channel="news") == 0
    harness.publish("news", "heard")
    assert [push["pub"]["data"] for push in client.receive_pushes()] == ["heard"]


def test_coming_and_going_is_reported() -> None:
    """With the code of what ended it; who never came does not go."""
    harness = NodeHarness()
    harness.recorder.expects_errors = True
    harness.calls.fail_next("attach", OSError("no link"))
    assert harness.connect("bob").request_code("subscribe", channel="d") == 100
    client = harness.connect("ann", "a", "b", "c")
    client.request("unsubscribe", channel="a")
    harness.send_control(UnsubscribeSessions(Selector(user="ann"), "b"))
    client.drop_connection()
    assert [event.channel for event in harness.recorder.of(Subscribed)] == ["a", "b", "c"]
    assert [(event.channel, event.code) for event in harness.recorder.of(Unsubscribed)] == [
        ("a", 0),
        ("b", 2000),
        ("c", 0),
    ]


# --- recovery (section 10)


def position(harness: NodeHarness, channel: str = "news") -> tuple[int, str]:
    page = run(harness.node.channels.history(channel, harness.namespaces.resolve(channel), 0))
    return page.position


def recover(harness: NodeHarness, offset: int, epoch: str, **fields: Any) -> dict[str, Any]:
    client = harness.connect("ann")
    return client.request("subscribe", channel="news", recover=True, offset=offset, epoch=epoch, **fields)


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
    harness = NodeHarness(kept(history_size=3))
    harness.publish("news", 1, 2, 3, 4, 5)
    expected: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": "epoch1", "was_recovering": True}
    if missed is None:
        expected |= {"offset": 5}
    else:
        expected |= {"recovered": True, "offset": offset}
        if missed:
            expected["publications"] = [{"data": number, "offset": number} for number in missed]
    assert recover(harness, offset, epoch) == expected
    [event] = harness.recorder.of(RecoveryFinished)
    assert (event.recovered, event.publications) == (missed is not None, len(missed or []))


def test_recovery_of_a_stream_that_never_was() -> None:
    """Offset 0 is recovered there, with or without its epoch: nothing was missed."""
    harness = NodeHarness(kept())
    assert recover(harness, 0, "").get("recovered") is True
    assert recover(harness, 0, "epoch1").get("recovered") is True
    assert "recovered" not in recover(harness, 0, "_")


def test_the_first_publication_tells_its_epoch() -> None:
    """So that who subscribed before there was a stream can adopt it; later ones need not."""
    harness = NodeHarness(kept())
    assert recover(harness, 0, "")["epoch"] == "epoch1"
    client = harness.connect("bob", "news")
    harness.publish("news", 1, 2)
    assert [push["pub"] for push in client.receive_pushes()] == [
        {"data": 1, "offset": 1, "epoch": "epoch1"},
        {"data": 2, "offset": 2},
    ]


def test_recovery_is_bounded() -> None:
    """With more missed than may be recovered at once, recovered is false; exactly the limit is fine."""
    harness = NodeHarness(kept(), recovery_max_publication_limit=3)
    harness.publish("news", 1, 2, 3, 4, 5)
    assert len(recover(harness, 2, "epoch1")["publications"]) == 3
    assert harness.recorder.limits() == []
    assert "recovered" not in recover(harness, 1, "epoch1")
    assert harness.recorder.limits() == ["client.recovery_max_publication_limit"]


def test_unrecovered_positions_are_error_112_on_request() -> None:
    """Flag bit 2 asks for the error instead of recovered=false; other bits and successes do not change."""
    harness = NodeHarness(kept())
    harness.publish("news", 1, 2)
    client = harness.connect("ann")
    lost = {"channel": "news", "recover": True, "offset": 1, "epoch": "other"}
    assert client.request_code("subscribe", **lost, flag=2) == 112
    assert client.request_code("subscribe", **lost, flag=3) == 112
    assert client.session.subscriptions == {}
    assert client.request("subscribe", **lost, flag=1)["was_recovering"] is True
    client.request("unsubscribe", channel="news")
    assert client.request("subscribe", **{**lost, "epoch": "epoch1"}, flag=2)["recovered"] is True


def test_who_does_not_recover_gets_the_top() -> None:
    """And no publications."""
    harness = NodeHarness(kept())
    harness.publish("news", 1, 2)
    result = harness.connect("ann").request("subscribe", channel="news", offset=1, epoch="epoch1")
    assert result == {"recoverable": True, "positioned": True, "epoch": "epoch1", "offset": 2}


@pytest.mark.parametrize(
    "options", [OPEN, ChannelOptions(allow_subscribe_for_client=True, force_positioning=True, **HISTORY)]
)
def test_where_nothing_can_be_recovered_the_answer_is_honest(options: ChannelOptions) -> None:
    """Who asked what it missed hears that it was not recovered, not silence."""
    harness = NodeHarness(options)
    harness.publish("news", 1)
    result = recover(harness, 0, "epoch1")
    assert result["was_recovering"] is True
    assert "recovered" not in result
    [joined] = harness.connect_plain("bob").send_plain(type="join", room="news", since={"offset": 0, "epoch": "epoch1"})
    assert (joined["recovered"], joined["messages"]) == (False, [])


def test_live_goes_on_after_recovery() -> None:
    """The server's own position is the top, whatever was recovered."""
    harness = NodeHarness(kept())
    harness.publish("news", 1, 2, 3)
    client = harness.connect("ann")
    client.request("subscribe", channel="news", recover=True, offset=1, epoch="epoch1")
    harness.publish("news", 4)
    assert [push["pub"]["offset"] for push in client.receive_pushes()] == [4]
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
    harness = NodeHarness(kept("cache"))
    harness.publish("news", 1, 2, 3)
    result = recover(harness, offset, epoch)
    assert (result["recovered"], result["offset"] if offset else result.get("offset", 0)) == (True, offset)
    assert [publication["offset"] for publication in result.get("publications", [])] == given


@pytest.mark.parametrize(("offset", "epoch", "recovered"), [(2, "epoch1", True), (1, "epoch1", False), (0, "", False)])
def test_recovery_of_an_empty_cache(offset: int, epoch: str, recovered: bool) -> None:
    """Where the latest is gone, only somebody at the top has missed nothing."""
    harness = NodeHarness(kept("cache"))
    harness.publish("news", 1, 2)
    run(harness.node.channels.remove_history("news", harness.namespaces.resolve("news")))
    result = recover(harness, offset, epoch)
    assert result.get("recovered", False) is recovered
    assert (result["offset"], "publications" in result) == (2, False)


def test_a_cache_may_be_given_unasked() -> None:
    """With auto_cache_recover every new subscriber gets the latest, and nobody was recovering."""
    harness = NodeHarness(kept("cache", auto_cache_recover=True))
    client = harness.connect("ann")
    empty = client.request("subscribe", channel="news", flag=2)
    assert "publications" not in empty
    assert "was_recovering" not in empty
    harness.publish("news", 1, 2)
    full = harness.connect("bob").request("subscribe", channel="news")
    assert full["publications"] == [{"data": 2, "offset": 2}]
    assert full["recovered"] is True
    assert "was_recovering" not in full
    assert "publications" not in NodeHarness(kept("cache")).connect("ann").request("subscribe", channel="news")


# --- continuity


def lose_publication(harness: NodeHarness, channel: str = "news") -> None:
    """A publication that is stored but never announced here."""
    run(harness.memory.broker.detach(channel))
    harness.publish(channel, "lost")
    run(harness.memory.broker.attach(channel))
    harness.publish(channel, "after")


def test_a_gap_takes_client_side_subscribers_out() -> None:
    """With 2500: they come back by themselves, with their position, and miss nothing."""
    harness = NodeHarness(kept())
    client = harness.connect("ann", "news")
    lose_publication(harness)
    assert client.receive_pushes() == [
        {"channel": "news", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}
    ]
    assert client.disconnect_code == 0
    result = client.request("subscribe", channel="news", recover=True, offset=0, epoch="epoch1")
    assert [publication["data"] for publication in result["publications"]] == ["lost", "after"]


def test_a_gap_ends_sessions_with_server_side_subscriptions() -> None:
    """With 3010: the client did not subscribe, so it can only come back altogether."""
    harness = NodeHarness(kept())
    client = harness.connect("ann", channels={"news": SubscriptionGrant()})
    other = harness.connect("bob", "other")
    lose_publication(harness)
    harness.run_scheduled()
    assert client.disconnect_code == 3010
    assert other.disconnect_code == 0


def test_a_lost_link_takes_out_the_positioned() -> None:
    """Of all channels or of those named; who does not watch a position stays."""
    harness = NodeHarness(OPEN, {"kept": kept()})
    client = harness.connect("ann", "kept:a", "kept:b", "free")
    served = harness.connect("bob", channels={"kept:b": SubscriptionGrant(), "kept:c": SubscriptionGrant()})
    harness.node.listener.on_link_lost(["kept:a", "free", "unknown"])
    assert set(client.session.subscriptions) == {"kept:b", "free"}
    assert served.disconnect_code == 0
    harness.node.listener.on_link_lost(None)
    assert set(client.session.subscriptions) == {"free"}
    assert [push["unsubscribe"]["code"] for push in client.receive_pushes()] == [2500, 2500]
    assert served.disconnect_code == 3010


def test_a_lost_link_while_catching_up_ends_with_3010() -> None:
    """What was missed cannot be told, so the reply never comes (section 10, merging)."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("history")
        client.send("subscribe", channel="news")
        await settle()
        harness.node.listener.on_link_lost(None)
        assert client.disconnect_code == 0
        harness.calls.release("history")
        await settle()
        assert client.receive() == []
        assert client.disconnect_code == 3010
        assert harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


def test_a_hole_in_what_was_held_ends_with_3010() -> None:
    """Two publications come while history is read, and the one between them never does."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        harness.publish("news", 1)
        lose_publication(harness)
        harness.run_scheduled()
        harness.calls.release("presence_add")
        await settle()
        assert client.disconnect_code == 3010
        assert not any(call.startswith("publish_") for call in harness.calls.completed)

    asyncio.run(scenario())


@pytest.mark.parametrize("held", ["attach", "history", "presence_add"])
def test_publications_while_catching_up_come_once(held: str) -> None:
    """Either in the reply or right after it, in order, wherever the subscription was waiting."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        harness.publish("news", 1, 2)
        if held != "attach":
            run(harness.node.attachments.attach("news"))
        client = harness.connect("ann")
        harness.calls.hold(held)
        client.send("subscribe", channel="news", recover=True, offset=1, epoch="epoch1")
        await settle()
        harness.publish("news", 3)
        harness.run_scheduled()
        harness.publish("news", 4)
        assert client.receive() == []
        harness.calls.release(held)
        await settle()
        harness.publish("news", 5)
        reply, *pushes = client.receive()
        publications = reply["subscribe"]["publications"] + [push["push"]["pub"] for push in pushes]
        assert [publication["data"] for publication in publications] == [2, 3, 4, 5]
        assert reply["subscribe"]["recovered"] is True

    asyncio.run(scenario())


# --- being interrupted


@pytest.mark.parametrize("held", ["verify", "attach", "history", "presence_add"])
def test_unsubscribing_waits_for_the_subscription(held: str) -> None:
    """Sent in the same breath, the replies come in order and the end is: not subscribed."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.tokens.add_subscription("t", "ann", "news")
        harness.calls.hold(held)
        first = client.send("subscribe", channel="news", token="t")
        second = client.send("unsubscribe", channel="news")
        await settle()
        assert client.receive() == []
        harness.calls.release(held)
        await settle()
        assert [message["id"] for message in client.receive() if "id" in message] == [first, second]
        assert client.session.subscriptions == {}
        assert harness.present_clients("news") == set()
        leaves = [call for call in harness.calls.completed if call.startswith("publish_")]
        assert leaves == [f"publish_join news {client.id}", f"publish_leave news {client.id}"]

    asyncio.run(scenario())


@pytest.mark.parametrize("held", ["verify", "attach", "history", "presence_add"])
def test_a_session_that_ends_while_it_subscribes_leaves_nothing(held: str) -> None:
    """No subscription, no presence, no announcement, no attachment, no timer."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.tokens.add_subscription("t", "ann", "news", expire_at_unix_s=UNIX_S + 60.0)
        harness.calls.hold(held)
        client.send("subscribe", channel="news", token="t")
        client.send("subscribe", channel="other")
        await settle()
        client.drop_connection()
        harness.calls.release(held)
        await settle()
        assert harness.node.hub.statistics().subscriptions == 0
        assert client.session.subscriptions == {}
        assert harness.present_clients("news") == set()
        assert client.receive() == []
        assert not any(call.startswith("publish_") for call in harness.calls.completed)
        if held == "verify":
            assert "attach news" not in harness.calls.completed, "nothing is begun after the end"
        harness.advance_time(60)
        await settle()
        assert harness.attached_channels() == 0
        assert len(harness.timers) == 0
        assert harness.recorder.of(Subscribed) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("held", ["attach", "history", "presence_add"])
def test_the_server_may_unsubscribe_meanwhile(held: str) -> None:
    """Then the subscription fails, and the client is not in."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold(held)
        number = client.send("subscribe", channel="news")
        await settle()
        harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
        harness.calls.release(held)
        await settle()
        [error] = [message for message in client.receive() if message.get("id") == number]
        assert error["error"]["code"] == 103
        assert client.session.subscriptions == {}
        assert harness.present_clients("news") == set()
        assert client.request_code("subscribe", channel="news") == 0

    asyncio.run(scenario())


def test_the_server_may_subscribe_while_a_token_is_verified() -> None:
    """Then the client's own wish finds that it is in already: never two at once."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.tokens.add_subscription("t", "ann", "news")
        harness.calls.hold("verify")
        number = client.send("subscribe", channel="news", token="t")
        await settle()
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        harness.calls.release("verify")
        await settle()
        [error] = [message for message in client.receive() if message.get("id") == number]
        assert error["error"]["code"] == 105
        assert harness.node.hub.statistics().subscriptions == 1
        client.drop_connection()
        assert harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


def test_the_channel_limit_holds_while_a_token_is_verified() -> None:
    """What came in meanwhile counts."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS, channel_limit=1)
        client = harness.connect("ann")
        harness.tokens.add_subscription("t", "ann", "news")
        harness.calls.hold("verify")
        number = client.send("subscribe", channel="news", token="t")
        await settle()
        harness.send_control(SubscribeSessions(Selector(user="ann"), "other"))
        harness.calls.release("verify")
        await settle()
        [error] = [message for message in client.receive() if message.get("id") == number]
        assert error["error"]["code"] == 106

    asyncio.run(scenario())


def test_presence_that_comes_after_its_removal_is_removed() -> None:
    """A slow store adds what was removed before; but not if the client has come back since."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        let_the_first_add = harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
        let_the_second_add = harness.calls.hold("presence_add")
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        let_the_second_add()
        await settle()
        let_the_first_add()
        await settle()
        assert client.session.subscriptions["news"].options.server_side
        assert harness.present_clients("news") == {client.id}
        client.drop_connection()
        assert harness.present_clients("news") == set()

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["attach", "history", "presence_add"])
def test_a_failing_engine_is_a_temporary_error(method: str) -> None:
    """The client may try again, and then it works."""
    harness = NodeHarness(ALL_STEPS)
    harness.recorder.expects_errors = True
    client = harness.connect("ann")
    harness.calls.fail_next(method, OSError("no link"))
    reply = client.request_reply("subscribe", channel="news")
    assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
    assert harness.node.hub.statistics().subscriptions == 0
    assert client.request_code("subscribe", channel="news") == 0


# --- expiry (section 8)


def expiring(harness: NodeHarness, **grant: Any) -> HarnessClient:
    client = harness.connect("ann")
    harness.tokens.add_subscription(
        "t", "ann", "news", **{"expire_at_unix_s": UNIX_S + 60.0, "client_refresh": True, **grant}
    )
    client.request("subscribe", channel="news", token="t")
    return client


def without_pings(**options: Any) -> NodeHarness:
    return NodeHarness(CLOSED, ping_interval=Seconds(0), **options)


@pytest.mark.parametrize("interval", [Seconds(0), Seconds(7), Seconds(27)])
def test_an_expired_subscription_is_taken_out(interval: Seconds) -> None:
    """With 2501 after the grace, however often upkeep runs; the session lives on."""
    harness = without_pings(presence_update_interval=interval)
    client = expiring(harness)
    harness.advance_time(84.5)
    assert client.receive() == []
    harness.advance_time(0.5)
    assert client.receive_pushes() == [
        {"channel": "news", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}
    ]
    assert client.disconnect_code == 0
    assert harness.node.hub.statistics().subscriptions == 0


def test_an_expired_server_side_subscription_ends_the_session() -> None:
    """With 3006: the client cannot make it again by itself."""
    harness = without_pings()
    client = harness.connect("ann")
    harness.send_control(SubscribeSessions(Selector(user="ann"), "news", expire_at_unix_s=UNIX_S + 60.0))
    harness.advance_time(84.5)
    assert client.disconnect_code == 0
    harness.advance_time(0.5)
    assert client.disconnect_code == 3006


def test_a_refreshed_subscription_lives_on() -> None:
    """Until its new end, or for good if it has none."""
    harness = without_pings()
    client = expiring(harness)
    harness.tokens.add_subscription("later", "ann", "news", expire_at_unix_s=UNIX_S + 600.0, client_refresh=True)
    assert client.request("sub_refresh", channel="news", token="later") == {"expires": True, "ttl": 600}
    harness.advance_time(624, step_s=1)
    assert client.receive() == []
    harness.tokens.add_subscription("forever", "ann", "news")
    assert client.request("sub_refresh", channel="news", token="forever") == {}
    harness.advance_time(1000, step_s=10)
    assert set(client.session.subscriptions) == {"news"}


def test_a_refreshed_subscription_shows_its_new_info() -> None:
    """In presence at once, in what is published and in the leave; without one in the token the old stays."""
    harness = NodeHarness(WITH_PRESENCE)
    witness = harness.connect("bob", "news")
    client = harness.connect("ann")

    def token(name: str, info: bytes) -> str:
        return harness.tokens.add_subscription(
            name, "ann", "news", info=Raw(info), expire_at_unix_s=UNIX_S + 600.0, client_refresh=True
        )

    def shown() -> Any:
        return witness.request("presence", channel="news")["presence"][client.id].get("chan_info")

    client.request("subscribe", channel="news", token=token("first", b'"old"'))
    assert shown() == "old"
    client.request("sub_refresh", channel="news", token=token("second", b'"new"'))
    assert shown() == "new"
    client.request("sub_refresh", channel="news", token=token("third", b""))
    assert shown() == "new"
    witness.receive()
    client.request("publish", channel="news", data=1)
    client.request("unsubscribe", channel="news")
    published, left = witness.receive_pushes()
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
    harness = without_pings()
    client = expiring(harness)
    harness.tokens.subscriptions.known["old"] = TokenExpired("exp")
    harness.tokens.add_subscription("late", "ann", "news", expire_at_unix_s=float(UNIX_S), client_refresh=True)
    harness.tokens.add_subscription("for sport", "ann", "sport")
    harness.tokens.add_subscription("of bob", "bob", "news")
    harness.tokens.add_subscription("steady", "ann", "steady")
    client.request("subscribe", channel="steady", token="steady")
    assert client.request_code("sub_refresh", **request_) == code


def test_a_subscription_that_ended_is_not_refreshed() -> None:
    """It was taken out while its new token was being verified."""

    async def scenario() -> None:
        harness = without_pings()
        client = expiring(harness)
        harness.calls.hold("verify")
        number = client.send("sub_refresh", channel="news", token="t")
        await settle()
        harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
        harness.calls.release("verify")
        await settle()
        [error] = [message for message in client.receive() if message.get("id") == number]
        assert error["error"]["code"] == 103

    asyncio.run(scenario())
