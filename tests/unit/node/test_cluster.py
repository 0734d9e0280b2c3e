"""Control messages and surveys between nodes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.engines.port import ControlHandler
from beaconfire.model.grants import SubscriptionOverride
from beaconfire.model.position import StreamPosition
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
)
from beaconfire.node.forwarding import Forwarding
from tests.fakes.events import EventRecorder
from tests.unit.kit import run


class InProcessBus:
    """A control bus that connects several nodes in this process."""

    def __init__(self) -> None:
        self.handlers: dict[str, ControlHandler] = {}

    async def start(self, uid: str, handler: ControlHandler) -> None:
        self.handlers[uid] = handler

    async def stop(self) -> None:
        self.handlers.clear()

    async def broadcast(self, message: bytes) -> None:
        for handler in self.handlers.values():
            handler.on_control(message)

    async def send(self, node: str, message: bytes) -> bool:
        if node in self.handlers:
            self.handlers[node].on_control(message)
        return node in self.handlers

    async def nodes(self) -> Sequence[str]:
        return list(self.handlers)

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        return [handler.on_survey(request) for handler in self.handlers.values()]


class FakeLocalControl:
    """The sessions of one node. Records messages and surveys."""

    def __init__(self, name: str, channels: dict[str, int]) -> None:
        self.name = name
        self.channels = channels
        self.applied: list[ControlMessage] = []
        self.surveys: list[ConnectionsSurvey] = []

    def apply(self, message: ControlMessage) -> None:
        self.applied.append(message)

    def channel_counts(self) -> dict[str, int]:
        return self.channels

    def node_info(self) -> NodeInfo:
        return NodeInfo(self.name, self.name, "1", 1, 2, 3, 4, 5)

    def connection_infos(self, survey: ConnectionsSurvey) -> list[ConnectionInfo]:
        self.surveys.append(survey)
        return [ConnectionInfo("c", "ann", "websocket", "plain", ["a"], 7, app_name=self.name)]


def make_cluster(bus: InProcessBus, control: FakeLocalControl) -> Cluster:
    """A node without emulated sessions."""
    events = EventRecorder()
    forwarding = Forwarding(bus, control.name, Timers(ManualClock()), BackgroundTasks(lambda error: None), events)
    return Cluster(bus, control, control.name, forwarding)


def start_clusters() -> tuple[Cluster, list[FakeLocalControl]]:
    bus = InProcessBus()
    controls = [FakeLocalControl("one", {"news": 2, "chat:a": 1}), FakeLocalControl("two", {"news": 3, "chat:b": 1})]
    clusters = [make_cluster(bus, control) for control in controls]
    for cluster in clusters:
        run(cluster.start())
    return clusters[0], controls


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
def test_every_node_applies_a_control_message(message: ControlMessage) -> None:
    """The sender as well, and every field arrives."""
    cluster, controls = start_clusters()
    run(cluster.send(message))
    assert [control.applied for control in controls] == [[message], [message]]


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
    """A pattern is a glob, and is case-sensitive."""
    cluster, _ = start_clusters()
    assert run(cluster.channels(pattern)) == found


def test_surveys_return_the_nodes_and_connections_of_all_nodes() -> None:
    """Each node answers for itself, and gets the whole survey."""
    cluster, controls = start_clusters()
    assert [node.uid for node in run(cluster.nodes())] == ["one", "two"]
    survey = ConnectionsSurvey(user="ann", channel="news", limit=3)
    assert [connection.app_name for connection in run(cluster.connections(survey))] == ["one", "two"]
    assert [control.surveys for control in controls] == [[survey], [survey]]


def test_stopped_node_gets_no_control_messages() -> None:
    """It has left the control bus."""
    bus = InProcessBus()
    control = FakeLocalControl("one", {})
    cluster = make_cluster(bus, control)
    run(cluster.start())
    run(cluster.stop())
    run(cluster.send(UnsubscribeSessions(Selector(user="ann"))))
    assert control.applied == []


def test_each_kind_of_survey_has_its_own_tag() -> None:
    """A new kind must not decode as an old one."""
    encoded = [msgspec.msgpack.encode(survey) for survey in (ChannelsSurvey(), NodeSurvey(), ConnectionsSurvey())]
    assert len(set(encoded)) == 3
