"""The one way into a channel: options, recovery, and publications that arrive while a subscription is made."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from beaconfire.base.errors import EngineUnavailable
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import RecoveryFinished, Subscribed
from beaconfire.model.grants import SubscriptionOverride
from beaconfire.node.cluster import Selector, SubscribeSessions, UnsubscribeSessions
from tests.unit.kit import OPEN, NodeHarness, run, settle
from tests.unit.session.operations.support import (
    ALL_STEPS,
    HISTORY,
    UNIX_S,
    WITH_JOIN_LEAVE,
    with_history,
)

# --- the result and the effective options (section 9)


def test_result_of_a_subscription_without_options_is_empty() -> None:
    """Without position, expiry and data, the result is `{}`."""
    assert NodeHarness().connect("ann").request("subscribe", channel="news") == {}


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
def test_positioning_and_recovery_follow_options_grant_and_request(
    options: dict[str, Any], override: SubscriptionOverride | None, request_: dict[str, bool], expected: str
) -> None:
    """Forced by the namespace, or requested and allowed, or requested with access to history.

    A token may override what is forced.
    """
    harness = NodeHarness(ChannelOptions(**{**HISTORY, **options}))
    harness.tokens.add_subscription("t", "ann", "news", override=override)
    result = harness.connect("ann").request("subscribe", channel="news", token="t", **request_)
    assert " ".join(name for name in ("positioned", "recoverable") if result.get(name)) == expected
    if expected:
        assert result["epoch"] == "epoch1"
    else:
        assert result == {}


def test_subscription_without_history_has_no_position() -> None:
    """A position may be forced or requested, but there is no stream."""
    harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, force_recovery=True, force_positioning=True))
    assert harness.connect("ann").request("subscribe", channel="news") == {}


@pytest.mark.parametrize(
    ("options", "override", "requested", "receives"),
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
def test_receiving_joins_and_leaves_follows_options_grant_and_request(
    options: dict[str, Any], override: SubscriptionOverride | None, requested: bool, receives: bool
) -> None:
    """Receiving is forced, or requested with access to presence. The channel must announce joins and leaves."""
    harness = NodeHarness(ChannelOptions(**options), {"x": WITH_JOIN_LEAVE})
    harness.tokens.add_subscription("t", "ann", "news", override=override)
    client = harness.connect("ann")
    client.request("subscribe", channel="news", token="t", join_leave=requested)
    assert client.session.subscriptions["news"].options.receives_join_leave is receives


# --- recovery (section 10)


def recover(harness: NodeHarness, offset: int, epoch: str, **fields: Any) -> dict[str, Any]:
    """The result of a new client that subscribes with this position."""
    client = harness.connect("ann")
    return client.request("subscribe", channel="news", recover=True, offset=offset, epoch=epoch, **fields)


STREAM: list[tuple[str, int, str, list[int] | None]] = [
    ("some missed", 3, "epoch1", [4, 5]),
    ("nothing missed", 5, "epoch1", []),
    ("no epoch known", 3, "", [4, 5]),
    ("the oldest publication in history", 2, "epoch1", [3, 4, 5]),
    ("older than history", 1, "epoch1", None),
    ("before the first publication", 0, "", None),
    ("another epoch", 3, "other", None),
    ("another epoch at the top", 5, "other", None),
    ("an invalidated position", 0, "_", None),
    ("a position after the top", 6, "epoch1", None),
]


@pytest.mark.parametrize(("case", "offset", "epoch", "missed"), STREAM, ids=[row[0] for row in STREAM])
def test_stream_recovery_returns_everything_missed_or_nothing(
    case: str, offset: int, epoch: str, missed: list[int] | None
) -> None:
    """The result has the offset of the request if it is recovered, else the top of the stream."""
    harness = NodeHarness(with_history(history_size=3))
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


def test_recovery_of_an_unused_stream_succeeds_from_offset_0() -> None:
    """The epoch of the request may be empty. Nothing was missed."""
    harness = NodeHarness(with_history())
    assert recover(harness, 0, "").get("recovered") is True
    assert recover(harness, 0, "epoch1").get("recovered") is True
    assert "recovered" not in recover(harness, 0, "_")


def test_first_publication_of_a_stream_has_its_epoch() -> None:
    """A client that subscribed before the stream existed learns the epoch from it.

    Later publications do not have it.
    """
    harness = NodeHarness(with_history())
    assert recover(harness, 0, "")["epoch"] == "epoch1"
    client = harness.connect("bob", "news")
    harness.publish("news", 1, 2)
    assert [push["pub"] for push in client.receive_pushes()] == [
        {"data": 1, "offset": 1, "epoch": "epoch1"},
        {"data": 2, "offset": 2},
    ]


def test_recovery_over_the_limit_is_not_recovered() -> None:
    """The limit is exact."""
    harness = NodeHarness(with_history(), recovery_max_publication_limit=3)
    harness.publish("news", 1, 2, 3, 4, 5)
    assert len(recover(harness, 2, "epoch1")["publications"]) == 3
    assert harness.recorder.limits() == []
    assert "recovered" not in recover(harness, 1, "epoch1")
    assert harness.recorder.limits() == ["client.recovery_max_publication_limit"]


def test_flag_2_makes_an_unrecovered_position_error_112() -> None:
    """Instead of `recovered: false`. Other bits, and positions that are recovered, are not affected."""
    harness = NodeHarness(with_history())
    harness.publish("news", 1, 2)
    client = harness.connect("ann")
    lost = {"channel": "news", "recover": True, "offset": 1, "epoch": "other"}
    assert client.request_code("subscribe", **lost, flag=2) == 112
    assert client.request_code("subscribe", **lost, flag=3) == 112
    assert client.session.subscriptions == {}
    assert client.request("subscribe", **lost, flag=1)["was_recovering"] is True
    client.request("unsubscribe", channel="news")
    assert client.request("subscribe", **{**lost, "epoch": "epoch1"}, flag=2)["recovered"] is True


def test_subscribe_without_recover_returns_the_top() -> None:
    """The result has no publications."""
    harness = NodeHarness(with_history())
    harness.publish("news", 1, 2)
    result = harness.connect("ann").request("subscribe", channel="news", offset=1, epoch="epoch1")
    assert result == {"recoverable": True, "positioned": True, "epoch": "epoch1", "offset": 2}


@pytest.mark.parametrize(
    "options", [OPEN, ChannelOptions(allow_subscribe_for_client=True, force_positioning=True, **HISTORY)]
)
def test_recovery_in_a_channel_without_recovery_is_not_recovered(options: ChannelOptions) -> None:
    """The client learns it from the reply."""
    harness = NodeHarness(options)
    harness.publish("news", 1)
    result = recover(harness, 0, "epoch1")
    assert result["was_recovering"] is True
    assert "recovered" not in result
    [joined] = harness.connect_plain("bob").send_plain(type="join", room="news", since={"offset": 0, "epoch": "epoch1"})
    assert (joined["recovered"], joined["messages"]) == (False, [])


def test_live_publications_follow_a_recovery() -> None:
    """The position of the subscription is the top of the stream, whatever was recovered."""
    harness = NodeHarness(with_history())
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


@pytest.mark.parametrize(("case", "offset", "epoch", "given"), CACHE, ids=[row[0] for row in CACHE])
def test_cache_recovery_returns_the_latest_publication(case: str, offset: int, epoch: str, given: list[int]) -> None:
    """If the client has the latest publication, the result has none."""
    harness = NodeHarness(with_history("cache"))
    harness.publish("news", 1, 2, 3)
    result = recover(harness, offset, epoch)
    assert (result["recovered"], result["offset"] if offset else result.get("offset", 0)) == (True, offset)
    assert [publication["offset"] for publication in result.get("publications", [])] == given


@pytest.mark.parametrize(("offset", "epoch", "recovered"), [(2, "epoch1", True), (1, "epoch1", False), (0, "", False)])
def test_recovery_of_an_empty_cache_succeeds_only_at_the_top(offset: int, epoch: str, recovered: bool) -> None:
    """If the latest publication is gone, only a client at the top has missed nothing."""
    harness = NodeHarness(with_history("cache"))
    harness.publish("news", 1, 2)
    run(harness.node.channels.remove_history("news", harness.namespaces.resolve("news")))
    result = recover(harness, offset, epoch)
    assert result.get("recovered", False) is recovered
    assert (result["offset"], "publications" in result) == (2, False)


def test_auto_cache_recover_sends_the_latest_publication_to_new_subscribers() -> None:
    """Their result does not say that they were recovering."""
    harness = NodeHarness(with_history("cache", auto_cache_recover=True))
    client = harness.connect("ann")
    empty = client.request("subscribe", channel="news", flag=2)
    assert "publications" not in empty
    assert "was_recovering" not in empty
    harness.publish("news", 1, 2)
    full = harness.connect("bob").request("subscribe", channel="news")
    assert full["publications"] == [{"data": 2, "offset": 2}]
    assert full["recovered"] is True
    assert "was_recovering" not in full
    assert "publications" not in NodeHarness(with_history("cache")).connect("ann").request("subscribe", channel="news")


# --- while catching up


@pytest.mark.parametrize("held", ["attach", "history", "presence_add"])
def test_publications_while_catching_up_are_sent_once(held: str) -> None:
    """In the reply or directly after it, in order, at every call where the subscription may be suspended."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        harness.publish("news", 1, 2)
        if held != "attach":
            run(harness.node.work.attachments.attach("news"))
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


# --- interrupted


@pytest.mark.parametrize("held", ["verify", "attach", "history", "presence_add"])
def test_session_that_ends_during_subscribe_leaves_nothing_behind(held: str) -> None:
    """No subscription, presence, join, attachment or timer stays."""

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
def test_server_may_unsubscribe_during_subscribe(held: str) -> None:
    """The subscribe command then fails with error 103. The client gets nothing of the channel before."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold(held)
        number = client.send("subscribe", channel="news")
        await settle()
        harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
        harness.calls.release(held)
        await settle()
        [error] = client.receive()
        assert (error["id"], error["error"]["code"]) == (number, 103)
        assert client.session.subscriptions == {}
        assert harness.present_clients("news") == set()
        assert client.request_code("subscribe", channel="news") == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("held", ["attach", "history", "presence_add"])
def test_server_may_unsubscribe_during_its_own_subscribe(held: str) -> None:
    """The client learns of neither."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold(held)
        harness.send_control(SubscribeSessions(Selector(user="ann"), "news"))
        await settle()
        harness.send_control(UnsubscribeSessions(Selector(user="ann"), "news"))
        harness.calls.release(held)
        await settle()
        assert client.receive() == []
        assert client.session.subscriptions == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["attach", "history", "presence_add"])
@pytest.mark.parametrize("error", [EngineUnavailable("no answer in 3 s"), OSError("no link")], ids=["known", "unknown"])
def test_failing_engine_is_a_temporary_error(method: str, error: Exception) -> None:
    """The client may try again, and then it succeeds. Only an error that the port does not allow is a defect."""
    harness = NodeHarness(ALL_STEPS)
    harness.recorder.expects_errors = isinstance(error, OSError)
    client = harness.connect("ann")
    harness.calls.fail_next(method, error)
    reply = client.request_reply("subscribe", channel="news")
    assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
    assert harness.node.hub.statistics().subscriptions == 0
    assert client.request_code("subscribe", channel="news") == 0
