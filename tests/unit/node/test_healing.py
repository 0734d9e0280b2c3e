"""The node finds missed publications once for each channel, and delivers them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from msgspec import Raw

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.units import Size
from beaconfire.engines.port import HistoryOptions, HistoryPage
from beaconfire.model.events import ChannelHealed
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.node import healing
from beaconfire.node.healing import PAGE_MAX
from tests.unit.kit import OPEN, RECOVERABLE, HarnessClient, NodeHarness, run, settle
from tests.unit.session.operations.support import lose_history, lose_publication, with_history


def data(client: HarnessClient) -> list[object]:
    """The data of the publications that the client has received since the last call."""
    return [push["pub"]["data"] for push in client.receive_pushes() if "pub" in push]


def lose_link(harness: NodeHarness, channels: Sequence[str] | None = None) -> None:
    """The broker loses all attachments."""
    harness.node.listener.on_link_down(channels)
    run(harness.memory.broker.detach(channels or [name for name, _ in harness.node.hub.channels()]))


def healed(harness: NodeHarness) -> list[bool]:
    return [event.bridged for event in harness.recorder.of(ChannelHealed)]


# --- holes


def test_missed_publication_is_delivered_before_the_next_one() -> None:
    """The subscribers notice nothing. One read is enough for all of them."""
    harness = NodeHarness(RECOVERABLE)
    everybody = [harness.connect("ann", "news") for _ in range(3)]
    before = len(harness.calls.completed)
    lose_publication(harness)
    assert [data(client) for client in everybody] == [["lost", "after"]] * 3
    assert [call for call in harness.calls.completed[before:] if "history" in call] == ["history news"]
    assert healed(harness) == [True]
    assert len(harness.node.work.healing) == 0


def test_announcements_during_a_healing_follow_in_order() -> None:
    """Once each, although history may contain them. The excluded client does not get its publication."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        ann, bob = harness.connect("ann", "news"), harness.connect("bob", "news")
        harness.calls.hold("history")
        lose_publication(harness, publish_next=False)
        harness.publish("news", 1, exclude=[ann.id])
        await settle()
        harness.publish("news", 2, 3)
        harness.publish("news", 4, exclude=[bob.id])
        harness.calls.release("history")
        await settle()
        harness.publish("news", 5)
        assert data(ann) == ["lost", 2, 3, 4, 5]
        assert data(bob) == ["lost", 1, 2, 3, 5]

    asyncio.run(scenario())


def test_subscribers_without_a_position_get_each_publication_once() -> None:
    """Announcements that come late are dropped if history had them."""
    harness = NodeHarness(with_history(force_recovery=False, allow_publish_for_client=True))
    client = harness.connect("ann", "news")
    harness.publish("news", 1)
    epoch = run(harness.memory.broker.positions({"news": HistoryOptions(10, 300)}))["news"].epoch
    lose_publication(harness)
    harness.node.listener.on_publication("news", Publication(Raw(b'"lost"'), offset=2), epoch, 1, ())
    assert data(client) == [1, "lost", "after"]


def test_subscriber_without_a_position_gets_what_came_before_another_one_got_its_position() -> None:
    """The position of the channel then is ahead of what was delivered."""
    harness = NodeHarness(RECOVERABLE, {"open": with_history(force_recovery=False, allow_positioning=True)})
    client = harness.connect("ann", "open:a")
    held = []
    publish = harness.node.hub.publish
    harness.node.hub.publish = lambda *arguments: held.append(arguments)  # type: ignore[method-assign]
    harness.publish("open:a", 1, 2)
    harness.node.hub.publish = publish  # type: ignore[method-assign]
    positioned = harness.connect("bob")
    positioned.request("subscribe", channel="open:a", positioned=True)
    for arguments in held:
        publish(*arguments)
    harness.publish("open:a", 3)
    assert data(client) == [1, 2, 3]
    assert data(positioned) == [3]
    assert healed(harness) == []


def test_long_gap_is_read_in_pages() -> None:
    """Each page has at most 64 publications."""
    harness = NodeHarness(with_history(history_size=1000, allow_publish_for_client=True))
    client = harness.connect("ann", "news")
    run(harness.memory.broker.detach(["news"]))
    harness.publish("news", *range(2 * PAGE_MAX + 1))
    run(harness.memory.broker.attach(["news"]))
    harness.publish("news", "after")
    assert data(client) == [*range(2 * PAGE_MAX + 1), "after"]


def test_gap_that_history_does_not_bridge_is_told() -> None:
    """Subscriptions without a position stay, and get what was held."""
    harness = NodeHarness(RECOVERABLE, {"open": with_history(force_recovery=False, allow_positioning=True)})
    client, other = harness.connect("ann"), harness.connect("bob", "open:a")
    client.request("subscribe", channel="open:a", positioned=True)
    lose_history(harness, "open:a")
    assert [push["unsubscribe"]["code"] for push in client.receive_pushes()] == [2500]
    assert data(other) == ["after"]
    assert healed(harness) == [False]
    harness.publish("open:a", "next")
    assert data(other) == ["next"]


def test_only_subscriptions_behind_the_start_of_history_are_told() -> None:
    """A subscription that has read history later goes on."""
    harness = NodeHarness(RECOVERABLE)
    behind = harness.connect("ann", "news")
    run(harness.memory.broker.detach(["news"]))
    harness.publish("news", *range(20))
    ahead = harness.connect("bob", "news")
    harness.publish("news", 20)
    run(harness.memory.broker.attach(["news"]))
    harness.publish("news", 21)
    assert [push["unsubscribe"]["code"] for push in behind.receive_pushes()] == [2500]
    assert data(ahead) == [20, 21]


def test_gap_that_clients_could_not_take_at_once_is_told() -> None:
    """They recover in pieces, at their own speed."""
    harness = NodeHarness(RECOVERABLE, queue_max_size=Size(4096))
    client = harness.connect("ann", "news")
    run(harness.memory.broker.detach(["news"]))
    harness.publish("news", "x" * 1000, "y" * 1000)
    run(harness.memory.broker.attach(["news"]))
    harness.publish("news", "after")
    assert [push["unsubscribe"]["code"] for push in client.receive_pushes()] == [2500]
    assert client.disconnect_code == 0


def test_too_many_announcements_during_a_healing_are_a_gap() -> None:
    """Subscriptions without a position get all that was held, and the read that comes too late is ignored."""

    async def scenario() -> None:
        harness = NodeHarness(
            RECOVERABLE,
            {"open": with_history(force_recovery=False, allow_positioning=True)},
            queue_max_size=Size(4096),
        )
        client, other = harness.connect("ann"), harness.connect("bob", "open:a")
        client.request("subscribe", channel="open:a", positioned=True)
        harness.calls.hold("history")
        lose_publication(harness, "open:a")
        await settle()
        harness.publish("open:a", "x" * 1000, "y" * 1000)
        assert [push["unsubscribe"]["code"] for push in client.receive_pushes()] == [2500]
        assert data(other) == ["after", "x" * 1000, "y" * 1000]
        harness.calls.release("history")
        await settle()
        assert data(other) == []

    asyncio.run(scenario())


def test_what_is_held_for_all_channels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One channel is given up, and another one is healed. What ends, in either way, makes room again."""

    async def scenario() -> None:
        monkeypatch.setattr(healing, "HELD_BYTES_MAX", 3000)
        harness = NodeHarness(RECOVERABLE)
        for _ in range(3):
            ann, bob = harness.connect("ann", "news"), harness.connect("bob", "sport")
            harness.calls.hold("history")
            for channel in ("news", "sport"):
                lose_publication(harness, channel)
                harness.publish(channel, "x" * 1200)
                await settle()
            assert [push["unsubscribe"]["code"] for push in bob.receive_pushes()] == [2500]
            harness.calls.release("history")
            await settle()
            assert data(ann) == ["lost", "after", "x" * 1200]
            ann.drop_connection()
            bob.drop_connection()
        assert len(harness.node.work.healing) == 0

    asyncio.run(scenario())


def test_announcement_of_a_lost_stream_is_no_gap() -> None:
    """The subscribers have read the new stream already."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    harness.node.listener.on_publication("news", Publication(Raw(b'"old"'), offset=9), "older", 8, ())
    harness.publish("news", "new")
    assert data(client) == ["new"]


def test_engine_that_contradicts_itself_is_a_gap() -> None:
    """Its history does not reach the announcement, or does not continue at its own start."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    epoch = client.session.subscriptions["news"].epoch
    harness.node.listener.on_publication("news", Publication(Raw(b"1"), offset=9), epoch, 8, ())
    assert [push["unsubscribe"]["code"] for push in client.receive_pushes()] == [2500]
    other = harness.connect("bob", "news")

    async def history(*_: object, **__: object) -> HistoryPage:
        return HistoryPage([], StreamPosition(0, epoch), False)

    harness.memory.broker.history = history  # type: ignore[method-assign]
    harness.node.listener.on_publication("news", Publication(Raw(b"1"), offset=11), epoch, 10, ())
    assert [push["unsubscribe"]["code"] for push in other.receive_pushes()] == [2500]


# --- a lost link


def calls_since(harness: NodeHarness, before: int) -> list[str]:
    """The calls of the engine after the first `before` ones, without those of the internal channel."""
    return [call for call in harness.calls.completed[before:] if not call.endswith(":revocations")]


def test_lost_link_ends_no_subscription_that_history_can_continue() -> None:
    """Channels that lost nothing need no read, and channels without history no comparison."""
    harness = NodeHarness(RECOVERABLE, {"open": OPEN})
    client = harness.connect("ann", "a", "b", "open:c")
    lose_link(harness)
    harness.publish("a", "lost")
    harness.advance_time(10)
    assert client.receive() == []
    before = len(harness.calls.completed)
    harness.node.listener.on_link_up(None)
    assert calls_since(harness, before) == ["attach a b open:c", "positions a b", "history a"]
    assert data(client) == ["lost"]
    harness.publish("a", "next")
    harness.publish("open:c", "open")
    assert data(client) == ["next", "open"]
    assert harness.attached_channels() == 3


def test_lost_link_of_some_channels_heals_only_these() -> None:
    """Channels without subscribers are not attached."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "a", "b")
    lose_link(harness, ["a"])
    harness.publish("a", "lost")
    before = len(harness.calls.completed)
    harness.node.listener.on_link_up(["a", "unknown"])
    assert harness.calls.completed[before:] == ["attach a", "positions a", "history a"]
    assert data(client) == ["lost"]


def test_many_channels_are_healed_in_batches() -> None:
    """Two calls for up to 512 channels."""
    harness = NodeHarness(RECOVERABLE, channel_limit=2000)
    harness.connect("ann", *(f"c{number}" for number in range(1000)))
    lose_link(harness)
    before = len(harness.calls.completed)
    harness.node.listener.on_link_up(None)
    calls = [call.split() for call in calls_since(harness, before)]
    assert [(call[0], len(call) - 1) for call in calls] == [
        ("attach", 512),
        ("positions", 512),
        ("attach", 488),
        ("positions", 488),
    ]


@pytest.mark.parametrize("failing", ["attach", "positions", "history"])
def test_healing_is_repeated_after_a_failure(failing: str) -> None:
    """With a growing delay. Nobody is told, and nothing is reported as a defect."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    lose_link(harness)
    harness.publish("news", "lost")
    harness.calls.fail_next(failing, EngineUnavailable("no link"))
    harness.node.listener.on_link_up(None)
    assert client.receive() == []
    harness.calls.fail_next(failing, EngineUnavailable("no link"))
    harness.advance_time(0.2, 0.2)
    assert client.receive() == []
    harness.advance_time(0.5)
    assert data(client) == ["lost"]
    assert len(harness.node.work.healing) == 0


def test_link_that_is_lost_during_a_healing_is_healed_again() -> None:
    """What was published between the two losses is found as well."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        client = harness.connect("ann", "news")
        lose_link(harness)
        harness.publish("news", 1)
        harness.calls.hold("history")
        harness.node.listener.on_link_up(None)
        await settle()
        lose_link(harness)
        harness.node.listener.on_link_up(None)
        harness.calls.release("history")
        await settle()
        harness.run_scheduled()
        await settle()
        assert data(client) == [1]
        harness.publish("news", 2)
        assert data(client) == [2]

    asyncio.run(scenario())


def test_subscriber_that_leaves_during_a_healing_ends_it() -> None:
    """A new subscriber gets nothing of it."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        client = harness.connect("ann", "news")
        harness.calls.hold("history")
        lose_publication(harness)
        await settle()
        client.request("unsubscribe", channel="news")
        harness.calls.release("history")
        other = harness.connect("bob", "news")
        await settle()
        harness.publish("news", "next")
        assert data(other) == ["next"]
        assert len(harness.node.work.healing) == 0

    asyncio.run(scenario())


def test_stopped_healing_reads_nothing() -> None:
    """Subscriptions that miss publications get nothing more."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    harness.node.work.stop()
    before = len(harness.calls.completed)
    lose_publication(harness)
    harness.node.listener.on_link_up(None)
    assert client.receive() == []
    assert all(call.startswith("publish") for call in harness.calls.completed[before:])


def test_channel_whose_position_the_engine_leaves_out_can_be_healed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a defect of the engine, and must not end the healing of the channel for ever."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    lose_link(harness)
    harness.publish("news", "lost")
    with monkeypatch.context() as patch:
        patch.setattr(harness.memory.broker, "positions", _leave_out)
        harness.node.listener.on_link_up(None)
    assert len(harness.node.work.healing) == 0
    harness.publish("news", "after")
    assert data(client) == ["lost", "after"]


async def _leave_out(channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
    return {}
