"""The closed sets of the report: scenarios, metrics and peers, with their titles and texts.

Samples may contain others. The report shows these with their own names, after the known ones.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class ScenarioText(msgspec.Struct, frozen=True, kw_only=True):
    """The title and text of a scenario. `operation` is what it counts, `needs` the capabilities that a peer must have.

    `axis` is an item of the variant: the costs are plotted against it.
    """

    name: str
    title: str
    operation: str = "operation"
    text: str = ""
    needs: frozenset[str] = frozenset()
    axis: str | None = None


class MetricText(msgspec.Struct, frozen=True, kw_only=True):
    """The title of a metric; `{}` in it is replaced by the scenario's operation.

    `compared`: whether ratio and spread are shown. `greater_is_better`: true for rates.
    """

    name: str
    title: str
    compared: bool = True
    greater_is_better: bool = False


SCENARIOS: tuple[ScenarioText, ...] = (
    ScenarioText(
        name="fanout",
        title="Fan-out",
        operation="delivery",
        text="One publisher, many subscribers of one channel. In flight: messages that were published and are not "
        "delivered to all subscribers yet.",
        needs=frozenset({"fanout"}),
    ),
    ScenarioText(
        name="ceiling",
        title="Fan-out compared with send()",
        operation="delivery",
        text="CPU per delivery as a multiple of that of the bare C loop. Both run at the same time and take turns of a "
        "third of a second, because the cost of send() changes more from minute to minute than servers differ.",
        needs=frozenset({"fanout"}),
    ),
    ScenarioText(
        name="rooms",
        title="Rooms",
        operation="message",
        text="Many small rooms in which all members publish and receive all messages.",
        needs=frozenset({"rooms"}),
    ),
    ScenarioText(
        name="one_to_one",
        title="One to one",
        operation="message",
        text="Pairs of clients; each message is acknowledged to its publisher.",
        needs=frozenset({"acks"}),
    ),
    ScenarioText(
        name="api",
        title="HTTP API",
        operation="publish",
        text="A backend publishes over keep-alive connections, one message or many per request.",
        needs=frozenset({"api"}),
    ),
    ScenarioText(
        name="connect",
        title="Connecting",
        operation="connection",
        text="Connect, verify the token if there is one, subscribe: a few connections at a time, or all at once.",
        needs=frozenset({"rooms"}),
    ),
    ScenarioText(
        name="recover",
        title="Recovery",
        operation="recovered message",
        text="Clients reconnect and receive the messages that they missed.",
        needs=frozenset({"recover"}),
    ),
    ScenarioText(
        name="latency",
        title="Latency",
        operation="message",
        text="From the time when a message was due (not sent) to its delivery, at a fixed rate: a server that stalls "
        "cannot hide this by slowing down the load.",
        needs=frozenset({"fanout"}),
        axis="rate",
    ),
    ScenarioText(
        name="memory",
        title="Memory",
        operation="connection",
        text="Resident memory of all processes of the server per idle, subscribed connection. The connection is "
        "authenticated if the peer uses tokens.",
        needs=frozenset({"rooms"}),
    ),
    ScenarioText(
        name="growth_subscribers",
        title="Growth: subscribers",
        operation="delivery",
        text="The cost of a delivery by the number of subscribers.",
        needs=frozenset({"fanout"}),
        axis="subscribers",
    ),
    ScenarioText(
        name="growth_channels",
        title="Growth: channels",
        operation="publish",
        text="The cost of a publish by the number of channels.",
        needs=frozenset({"rooms"}),
        axis="channels",
    ),
    ScenarioText(
        name="growth_history",
        title="Growth: history",
        operation="publish",
        text="The cost of a publish by the length of the channel's history.",
        needs=frozenset({"recover"}),
        axis="history",
    ),
    ScenarioText(
        name="growth_connections",
        title="Growth: connections",
        operation="connection",
        text="The memory of an idle connection by the number of connections.",
        needs=frozenset({"auth"}),
        axis="connections",
    ),
    ScenarioText(
        name="stall",
        title="Stalls of the event loop",
        operation="fan-out",
        text="The longest time during fan-out in which the server serves no other client.",
        needs=frozenset({"fanout"}),
    ),
)

METRICS: tuple[MetricText, ...] = (
    MetricText(name="cpu_us", title="CPU per {}"),
    MetricText(name="times_c_loop", title="CPU per {}"),
    MetricText(name="per_second", title="{} rate", greater_is_better=True),
    MetricText(name="bytes", title="memory per connection"),
    MetricText(name="p50_us", title="latency p50"),
    MetricText(name="p99_us", title="latency p99"),
    MetricText(name="p999_us", title="latency p99.9"),
    MetricText(name="max_us", title="longest"),
    MetricText(name="server_busy", title="server busy", compared=False),
    MetricText(name="load_busy", title="load busy", compared=False),
)

PEERS: dict[str, str] = {
    "beaconfire": "Beaconfire",
    "beaconfire-2-workers": "Beaconfire with two workers",
    "centrifugo": "Centrifugo",
    "go-gorilla": "Go with gorilla/websocket",
    "node-ws": "Node.js with ws",
    "node-socketio": "Node.js with Socket.IO",
    "python-socketio": "python-socketio",
    "channels": "Django Channels",
    "websockets": "Python with websockets",
    "c-loop": "C loop of send()",
}
"""Titles for reports without `about.json`; also the order of rows."""


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names without duplicates; known names first, in the order of `known`."""
    ranks = {name: rank for rank, name in enumerate(known)}
    return sorted(dict.fromkeys(names), key=lambda name: ranks.get(name, len(ranks)))


def scenario(name: str) -> ScenarioText:
    return next((entry for entry in SCENARIOS if entry.name == name), ScenarioText(name=name, title=name))


def metric(name: str, scenario: ScenarioText) -> MetricText:
    """The metric with the title for this scenario."""
    found = next((entry for entry in METRICS if entry.name == name), MetricText(name=name, title=name))
    return msgspec.structs.replace(found, title=found.title.replace("{}", scenario.operation))
