"""One running server: the hub joined to the engine."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from beaconfire.base.errors import CommandError
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import InternalError
from beaconfire.model.position import StreamPosition
from tests.unit.kit import OPEN, RECOVERABLE, World, run, settle

BARE = ChannelOptions()


def test_attach_comes_before_history() -> None:
    """Hold, attach, read: in between nothing can pass unseen."""
    world = World(RECOVERABLE)
    world.connect("ann", "news")
    assert world.stops.passed == ["verify ann", "attach news", "history news"]


def test_publishing_stores_and_announces() -> None:
    """Everybody's way in; the answer is the position."""
    world = World(RECOVERABLE)
    client = world.connect("ann", "news")
    assert world.publish("news", "x", tags={"k": "v"}) == StreamPosition(1, "epoch1")
    [push] = client.take_pushes()
    assert push["pub"] == {"data": "x", "offset": 1, "epoch": "epoch1", "tags": {"k": "v"}}
    page = run(world.node.channels.history("news", world.namespaces.resolve("news"), -1))
    assert [bytes(publication.data) for publication in page.publications] == [b'"x"']


def test_history_can_be_skipped() -> None:
    """Then the publication has no place in the stream."""
    world = World(RECOVERABLE)
    client = world.connect("ann", "news")
    assert world.publish("news", 1, skip_history=True) == StreamPosition(0, "")
    assert world.publish("news", 2) == StreamPosition(1, "epoch1")
    assert [push["pub"].get("offset", 0) for push in client.take_pushes()] == [0, 1]


def test_publishing_may_exclude_clients() -> None:
    """They do not get it live, their position moves on, and history has it for them too."""
    world = World(RECOVERABLE)
    ann, bob = world.connect("ann", "news"), world.connect("bob", "news")
    world.publish("news", 1, exclude=[ann.id])
    world.publish("news", 2)
    assert [push["pub"]["data"] for push in ann.take_pushes()] == [2]
    assert [push["pub"]["data"] for push in bob.take_pushes()] == [1, 2]
    assert len(ann.ask("history", channel="news", limit=5)["publications"]) == 2


def test_publishing_again_with_the_same_key_does_nothing() -> None:
    """Nor does an older version; the position is the first one's, or the top."""
    world = World(RECOVERABLE)
    client = world.connect("ann", "news")
    assert world.publish("news", 1, idempotency_key="k") == world.publish("news", 1, idempotency_key="k")
    world.publish("news", 2, version=5)
    assert world.publish("news", 3, version=5).offset == 2
    assert world.publish("news", 4, version=1, version_epoch="other").offset == 3
    assert [push["pub"]["data"] for push in client.take_pushes()] == [1, 2, 4]


def test_what_is_off_is_error_108() -> None:
    """History and presence, to read and to remove, whoever asks."""
    world = World(BARE)
    channels = world.node.channels
    namespace = world.namespaces.resolve("news")
    for call in (
        channels.history("news", namespace, 1),
        channels.page("news", namespace, 1, None, False),
        channels.remove_history("news", namespace),
        channels.presence("news", namespace),
        channels.presence_stats("news", namespace),
    ):
        with pytest.raises(CommandError, match="108"):
            run(call)


def test_removing_history_keeps_the_position() -> None:
    """The stream goes on after the last offset."""
    world = World(RECOVERABLE)
    namespace = world.namespaces.resolve("news")
    world.publish("news", 1, 2)
    run(world.node.channels.remove_history("news", namespace))
    page = run(world.node.channels.page("news", namespace, -1, None, False))
    assert (list(page.publications), page.position) == ([], StreamPosition(2, "epoch1"))
    assert world.publish("news", 3).offset == 3


def test_a_channel_is_detached_after_its_last_subscriber() -> None:
    """A while later, and not at all if somebody comes back in time."""
    world = World()
    client = world.connect("ann", "news")
    client.ask("unsubscribe", channel="news")
    world.pass_time(0.5)
    assert world.attached() == 1
    client.ask("subscribe", channel="news")
    world.pass_time(5)
    assert world.attached() == 1
    client.ask("unsubscribe", channel="news")
    world.pass_time(1)
    assert world.attached() == 0


def test_withdrawing_is_idempotent() -> None:
    """One leave, one goodbye, one report."""
    world = World(ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True))
    client = world.connect("ann", "news")
    subscription = client.session.subscriptions["news"]
    for _ in range(3):
        world.node.memberships.remove(subscription, 0)
    assert world.stops.passed[-2:] == [f"presence_remove news {client.id}", f"publish_leave news {client.id}"]
    assert [call.split()[0] for call in world.stops.passed].count("publish_leave") == 1


def test_stopping_waits_for_goodbyes() -> None:
    """What ended sessions left behind is done before the broker stops."""

    async def scenario() -> None:
        world = World(ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True))
        client = world.connect("ann", "news")
        world.stops.hold("presence_remove")
        client.cut()
        stopping = asyncio.ensure_future(world.node.stop())
        await settle()
        assert not stopping.done()
        world.stops.release("presence_remove")
        await stopping
        assert world.presence("news") == set()

    asyncio.run(scenario())


def test_background_failures_are_reported() -> None:
    """With the traceback, and nobody is hurt."""
    world = World(ChannelOptions(allow_subscribe_for_client=True, presence=True))
    world.recorder.expects_errors = True
    client = world.connect("ann", "news")
    world.stops.fail_next("presence_remove", OSError("no link"))
    client.ask("unsubscribe", channel="news")
    assert client.ended == 0
    [report] = world.recorder.of(InternalError)
    assert (report.where, "no link" in report.error) == ("background", True)


def test_statistics_are_of_now() -> None:
    """Open connections, those with an identity, named users, channels and subscriptions."""
    world = World(OPEN)
    world.open_session()
    world.connect("ann", "a", "b")
    world.connect("ann", "b")
    world.connect()
    statistics = world.node.statistics()
    assert (statistics.connections, statistics.sessions, statistics.users) == (4, 3, 1)
    assert (statistics.channels, statistics.subscriptions) == (2, 3)


def test_positions_outlive_publications() -> None:
    """By the namespace's meta ttl; then the epoch is another, and recovery says so."""
    options = ChannelOptions(
        allow_subscribe_for_client=True,
        history_size=5,
        history_ttl=Seconds(10),
        history_meta_ttl=Seconds(100),
        force_recovery=True,
    )
    world = World(options)
    world.publish("news", Raw(b"1"))
    world.clock.advance(50)
    client = world.connect("ann")
    since = {"channel": "news", "recover": True, "offset": 1, "epoch": "epoch1"}
    assert client.ask("subscribe", **since)["recovered"] is True
    client.ask("unsubscribe", channel="news")
    world.clock.advance(100)
    result = client.ask("subscribe", **since)
    assert ("recovered" in result, result["epoch"]) == (False, "epoch2")
