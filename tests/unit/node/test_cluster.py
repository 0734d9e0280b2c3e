"""What nodes tell and ask each other."""

from __future__ import annotations

import msgspec
import pytest

from beaconfire.engines.port import ControlHandler
from beaconfire.model.grants import SubscriptionOverride
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.node.cluster import (
    ChannelsSurvey,
    Cluster,
    ConnectionInfo,
    ConnectionsSurvey,
    ControlMessage,
    DisconnectSessions,
    NodeInfo,
    NodeSurvey,
    RefreshSessions,
    Selector,
    SubscribeSessions,
    UnsubscribeSessions,
    payload,
)
from tests.unit.kit import run


class Bus:
    """A control bus that joins several nodes in this process."""

    def __init__(self) -> None:
        self.nodes: list[ControlHandler] = []

    async def start(self, handler: ControlHandler) -> None:
        self.nodes.append(handler)

    async def stop(self) -> None:
        self.nodes.clear()

    async def broadcast(self, message: bytes) -> None:
        for node in self.nodes:
            node.on_control(message)

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        return [node.on_survey(request) for node in self.nodes]


class Home:
    """One node's sessions."""

    def __init__(self, name: str, channels: dict[str, int]) -> None:
        self.name = name
        self.channels = channels
        self.applied: list[ControlMessage] = []
        self.asked: list[ConnectionsSurvey] = []

    def apply(self, message: ControlMessage) -> None:
        self.applied.append(message)

    def channel_counts(self) -> dict[str, int]:
        return self.channels

    def node_info(self) -> NodeInfo:
        return NodeInfo(self.name, self.name, "1", 1, 2, 3, 4, 5)

    def connection_infos(self, survey: ConnectionsSurvey) -> list[ConnectionInfo]:
        self.asked.append(survey)
        return [ConnectionInfo("c", "ann", "websocket", "plain", ["a"], 7, app_name=self.name)]


def make() -> tuple[Cluster, list[Home]]:
    bus = Bus()
    homes = [Home("one", {"news": 2, "chat:a": 1}), Home("two", {"news": 3, "chat:b": 1})]
    clusters = [Cluster(bus, home) for home in homes]
    for cluster in clusters:
        run(cluster.start())
    return clusters[0], homes


@pytest.mark.parametrize(
    "message",
    [
        SubscribeSessions(
            Selector(user="ann", client="c1"),
            "news",
            info=b"\xff{}",
            data=b'"x"',
            expire_at_unix_s=1.5,
            since=StreamPosition(7, "e"),
            override=SubscriptionOverride(presence=True, join_leave=False),
        ),
        SubscribeSessions(Selector(user="ann"), "news"),
        UnsubscribeSessions(Selector(client="c1")),
        DisconnectSessions(Selector(user="ann"), 4000, "enough", whitelist=("c1", "c2")),
        RefreshSessions(Selector(user="ann"), expired=True, expire_at_unix_s=3.0, info=b"{}"),
        RefreshSessions(Selector(user="ann"), info=b""),
    ],
)
def test_every_node_applies_what_one_is_told(message: ControlMessage) -> None:
    """The sender too, and nothing of it is lost on the way."""
    cluster, homes = make()
    run(cluster.send(message))
    assert [home.applied for home in homes] == [[message], [message]]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", {"news": 5, "chat:a": 1, "chat:b": 1}),
        ("*", {"news": 5, "chat:a": 1, "chat:b": 1}),
        ("chat:*", {"chat:a": 1, "chat:b": 1}),
        ("n?ws", {"news": 5}),
        ("NEWS", {}),
    ],
)
def test_channels_are_counted_over_all_nodes(pattern: str, found: dict[str, int]) -> None:
    """A pattern is a glob and minds the case."""
    cluster, _ = make()
    assert run(cluster.channels(pattern)) == found


def test_nodes_and_connections_are_those_of_all() -> None:
    """Each node answers for itself, and gets the whole question."""
    cluster, homes = make()
    assert [node.uid for node in run(cluster.nodes())] == ["one", "two"]
    survey = ConnectionsSurvey(user="ann", channel="news", limit=3)
    assert [connection.app_name for connection in run(cluster.connections(survey))] == ["one", "two"]
    assert [home.asked for home in homes] == [[survey], [survey]]


def test_stopping_leaves_the_bus() -> None:
    """Afterwards nothing is heard."""
    bus = Bus()
    home = Home("one", {})
    cluster = Cluster(bus, home)
    run(cluster.start())
    run(cluster.stop())
    run(cluster.send(UnsubscribeSessions(Selector(user="ann"))))
    assert home.applied == []


def test_surveys_are_told_apart() -> None:
    """By their tags, so that a new kind of question does not look like an old one."""
    encoded = [msgspec.msgpack.encode(survey) for survey in (ChannelsSurvey(), NodeSurvey(), ConnectionsSurvey())]
    assert len(set(encoded)) == 3


def test_payloads_become_the_cores() -> None:
    """Encoders omit a payload only if it is the one empty object."""
    assert payload(b"") is NO_PAYLOAD
    assert bytes(payload(b"{}")) == b"{}"
