"""Publications that are lost while a subscription is made."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from beaconfire.model.publication import Publication
from beaconfire.session.operations.prepare import REPEATED_READS_MAX
from tests.unit.kit import RECOVERABLE, NodeHarness, run, settle
from tests.unit.session.operations.support import ALL_STEPS, lose_history, lose_publication


def lose_link_and_publication(harness: NodeHarness) -> None:
    """Publishes while the link is lost. The link is back afterwards, and the channel is not attached."""
    harness.node.listener.on_link_down(None)
    run(harness.memory.broker.detach(["news"]))
    harness.publish("news", "lost")
    harness.node.listener.on_link_up(None)


def test_gap_while_catching_up_ends_the_session_with_3010() -> None:
    """Publications are missing, so there is no reply (section 10, merging)."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("history")
        client.send("subscribe", channel="news")
        await settle()
        harness.node.hub.mark_gap("news", "publications were lost")
        harness.run_scheduled()
        assert client.disconnect_code == 0
        harness.calls.release("history")
        await settle()
        assert client.receive() == []
        assert client.disconnect_code == 3010
        assert harness.node.hub.statistics().subscriptions == 0

    asyncio.run(scenario())


def test_lost_link_while_catching_up_is_healed() -> None:
    """The client gets what was published while the link was lost, although nobody else has a position."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        lose_link_and_publication(harness)
        await settle()
        harness.calls.release("presence_add")
        await settle()
        harness.advance_time(1)
        reply, *pushes = client.receive()
        assert reply["subscribe"]["epoch"] == "epoch1"
        assert [push["push"]["pub"]["data"] for push in pushes if "pub" in push["push"]] == ["lost"]

    asyncio.run(scenario())


def test_lost_link_is_healed_although_a_publication_follows_before_the_reply() -> None:
    """The channel knows up to where the subscription has read history, so the publication shows that some were missed.

    The connection stays open.
    """

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        lose_link_and_publication(harness)
        await settle()
        harness.publish("news", "after")
        harness.run_scheduled()
        await settle()
        harness.calls.release("presence_add")
        await settle()
        assert client.disconnect_code == 0
        _, *pushes = client.receive()
        assert [push["push"]["pub"]["data"] for push in pushes if "pub" in push["push"]] == ["lost", "after"]

    asyncio.run(scenario())


def test_history_is_read_again_if_the_link_was_lost_during_the_read() -> None:
    """What is held does not continue from the page that was read."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("history", after=True)
        client.send("subscribe", channel="news")
        await settle()
        lose_link_and_publication(harness)
        await settle()
        harness.publish("news", "after")
        harness.run_scheduled()
        harness.calls.release("history", after=True)
        await settle()
        assert [message["subscribe"]["offset"] for message in client.receive() if "subscribe" in message] == [2]

    asyncio.run(scenario())


def test_history_that_never_fits_what_is_held_is_read_three_times() -> None:
    """An announcement of a lost stream is held. The client is told, and starts again."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("history", after=True)
        client.send("subscribe", channel="news")
        await settle()
        harness.node.hub.publish("news", Publication(Raw(b"1"), offset=9), "lost", (), False, 8)
        harness.run_scheduled()
        harness.calls.release("history", after=True)
        await settle()
        assert client.disconnect_code == 3010
        assert harness.calls.completed.count("history news") == 1 + REPEATED_READS_MAX

    asyncio.run(scenario())


def test_missing_offset_among_held_publications_is_healed() -> None:
    """One publication between two held ones was not announced."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        harness.publish("news", 1)
        lose_publication(harness)
        harness.run_scheduled()
        await settle()
        harness.calls.release("presence_add")
        await settle()
        _, *pushes = client.receive()
        assert [push["push"]["pub"]["data"] for push in pushes if "pub" in push["push"]] == [1, "lost", "after"]

    asyncio.run(scenario())


def test_missing_offset_among_held_publications_ends_the_session_with_3010() -> None:
    """History does not have the missing publication either."""

    async def scenario() -> None:
        harness = NodeHarness(ALL_STEPS)
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        client.send("subscribe", channel="news")
        await settle()
        harness.publish("news", 1)
        lose_history(harness)
        await settle()
        harness.run_scheduled()
        harness.calls.release("presence_add")
        await settle()
        assert client.disconnect_code == 3010
        assert not any(call.startswith("announce") for call in harness.calls.completed)

    asyncio.run(scenario())


def test_nothing_is_sent_before_the_connect_reply_that_a_gap_prevents() -> None:
    """One subscription of the connect is live already when another one finds a gap. What is pending for the live one is
    not sent."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.connect("ann")
        client = harness.open_session()
        release_news = harness.calls.hold("history")
        client.send("connect", token="ann", subs={"news": {}, "sport": {}})
        await settle()
        release_sport = harness.calls.hold("history")
        release_news()
        await settle()
        harness.publish("news", 1)
        client.session.subscriptions["sport"].mark_gap()
        release_sport()
        await settle()
        harness.run_scheduled()
        assert client.transport.closed is not None
        assert (client.transport.closed[0], client.transport.messages()) == (3010, [])

    asyncio.run(scenario())
