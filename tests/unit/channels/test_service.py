"""Publish, history and presence of channels."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.errors import CommandError
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.channels.service import ChannelService
from beaconfire.engines.port import HistoryOptions, HistoryPage
from beaconfire.model.position import StreamPosition
from tests.fakes.engine import ControlledBroker
from tests.unit.kit import RECOVERABLE, NodeHarness, run
from tests.unit.patching import chained_text

BARE = ChannelOptions()


def test_publish_stores_and_announces() -> None:
    """It returns the position."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    assert harness.publish("news", "x", tags={"k": "v"}) == StreamPosition(1, "epoch1")
    [push] = client.receive_pushes()
    assert push["pub"] == {"data": "x", "offset": 1, "epoch": "epoch1", "tags": {"k": "v"}}
    page = run(harness.node.channels.history("news", harness.namespaces.resolve("news"), -1))
    assert [bytes(publication.data) for publication in page.publications] == [b'"x"']


def test_publish_may_skip_history() -> None:
    """The publication then has no offset."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    assert harness.publish("news", 1, skip_history=True) == StreamPosition(0, "")
    assert harness.publish("news", 2) == StreamPosition(1, "epoch1")
    assert [push["pub"].get("offset", 0) for push in client.receive_pushes()] == [0, 1]


def test_publish_may_exclude_clients() -> None:
    """They do not receive the publication live, their position moves, and history has it."""
    harness = NodeHarness(RECOVERABLE)
    ann, bob = harness.connect("ann", "news"), harness.connect("bob", "news")
    harness.publish("news", 1, exclude=[ann.id])
    harness.publish("news", 2)
    assert [push["pub"]["data"] for push in ann.receive_pushes()] == [2]
    assert [push["pub"]["data"] for push in bob.receive_pushes()] == [1, 2]
    assert len(ann.request("history", channel="news", limit=5)["publications"]) == 2


def test_repeated_idempotency_key_or_old_version_publishes_nothing() -> None:
    """The position is that of the first publish, or the top."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    assert harness.publish("news", 1, idempotency_key="k") == harness.publish("news", 1, idempotency_key="k")
    harness.publish("news", 2, version=5)
    assert harness.publish("news", 3, version=5).offset == 2
    assert harness.publish("news", 4, version=1, version_epoch="other").offset == 3
    assert [push["pub"]["data"] for push in client.receive_pushes()] == [1, 2, 4]


def test_history_and_presence_that_are_off_are_error_108() -> None:
    """The error is the same for reading and for removing."""
    harness = NodeHarness(BARE)
    channels = harness.node.channels
    namespace = harness.namespaces.resolve("news")
    for call in (
        channels.history("news", namespace, 1),
        channels.page("news", namespace, 1, None, False),
        channels.remove_history("news", namespace),
        channels.presence("news", namespace),
        channels.presence_stats("news", namespace),
    ):
        with pytest.raises(CommandError, match="108"):
            run(call)


def test_remove_history_keeps_the_position() -> None:
    """The stream continues after the last offset."""
    harness = NodeHarness(RECOVERABLE)
    namespace = harness.namespaces.resolve("news")
    harness.publish("news", 1, 2)
    run(harness.node.channels.remove_history("news", namespace))
    page = run(harness.node.channels.page("news", namespace, -1, None, False))
    assert (list(page.publications), page.position) == ([], StreamPosition(2, "epoch1"))
    assert harness.publish("news", 3).offset == 3


def test_position_is_kept_for_the_meta_ttl() -> None:
    """Afterwards the stream has another epoch, and recovery fails."""
    options = ChannelOptions(
        allow_subscribe_for_client=True,
        history_size=5,
        history_ttl=Seconds(10),
        history_meta_ttl=Seconds(100),
        force_recovery=True,
    )
    harness = NodeHarness(options)
    harness.publish("news", Raw(b"1"))
    harness.clock.advance(50)
    client = harness.connect("ann")
    since = {"channel": "news", "recover": True, "offset": 1, "epoch": "epoch1"}
    assert client.request("subscribe", **since)["recovered"] is True
    client.request("unsubscribe", channel="news")
    harness.clock.advance(100)
    result = client.request("subscribe", **since)
    assert ("recovered" in result, result["epoch"]) == (False, "epoch2")


@pytest.mark.parametrize(
    ("since", "reverse", "code"),
    [
        (None, True, 0),
        (StreamPosition(1, "epoch1"), True, 0),
        (StreamPosition(1, ""), False, 0),
        (StreamPosition(0, ""), False, 0),
        (StreamPosition(0, "epoch1"), True, 107),
        (StreamPosition(1, "other"), False, 112),
        (StreamPosition(1, "other"), True, 112),
    ],
)
def test_page_checks_its_position(since: StreamPosition | None, reverse: bool, code: int) -> None:
    """Nothing is before offset 0, and the epoch must be that of the stream."""
    harness = NodeHarness(RECOVERABLE)
    harness.publish("news", 1, 2)
    page = harness.node.channels.page("news", harness.namespaces.resolve("news"), 1, since, reverse)
    if code == 0:
        assert run(page).position == StreamPosition(2, "epoch1")
        return
    with pytest.raises(CommandError) as raised:
        run(page)
    assert raised.value.code.code == code


class ForkedBroker(ControlledBroker):
    """A broker that has lost the publications after offset 2 of each stream, and then started a new epoch."""

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        return HistoryPage([], StreamPosition(5, "new"), continues=since is None or since.offset <= 2)


def test_a_page_of_an_earlier_epoch_may_continue() -> None:
    """The engine decides: a position is an error only if publications up to it were lost."""
    harness = NodeHarness(RECOVERABLE)
    namespace = harness.namespaces.resolve("news")
    channels = ChannelService(ForkedBroker(harness.calls, harness.memory.broker), harness.engine.presence)
    assert run(channels.page("news", namespace, 1, StreamPosition(2, "old"), False)).position.epoch == "new"
    with pytest.raises(CommandError) as raised:
        run(channels.page("news", namespace, 1, StreamPosition(3, "old"), False))
    assert raised.value.code.code == 112


@pytest.mark.parametrize(("option", "argument"), [(True, False), (False, True), (False, False)])
def test_namespace_or_publisher_allows_patches(option: bool, argument: bool) -> None:
    """One of the two is enough."""
    channel = ChannelOptions(allow_subscribe_for_client=True, allowed_delta_types=["fossil"], delta_publish=option)
    harness = NodeHarness(channel)
    client = harness.connect("ann")
    client.request("subscribe", channel="news", delta="fossil")
    harness.publish("news", chained_text(1), chained_text(2), delta=argument)
    assert [push["pub"].get("delta", False) for push in client.receive_pushes()] == [False, option or argument]
