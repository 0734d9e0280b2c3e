"""The closed sets of the report: scenarios, metrics and peers, with what is said about each.

Samples may hold others; these are shown under their own names, after the ones that are known.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario's words; `operation` is what it counts, `needs` what a peer must be capable of.

    With an `axis`, the name in the variant that grows, its costs are plotted against it.
    """

    name: str
    title: str
    operation: str = "operation"
    text: str = ""
    needs: frozenset[str] = frozenset()
    axis: str | None = None


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric's words; `{}` in the title is the scenario's operation.

    `compared`: whether a ratio and a spread say anything. `greater_is_better`: true of rates.
    """

    name: str
    title: str
    compared: bool = True
    greater_is_better: bool = False


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="fanout",
        title="Fan-out",
        operation="delivery",
        text="One publisher, many subscribers of one channel. In flight: messages that were published and have not "
        "reached all subscribers yet.",
        needs=frozenset({"fanout"}),
    ),
    Scenario(
        name="ceiling",
        title="Fan-out beside the ceiling",
        operation="delivery",
        text="CPU per delivery as a multiple of what the bare C loop needs, both serving at once and taking turns of a "
        "third of a second: what a send() costs differs more from minute to minute than servers do.",
        needs=frozenset({"fanout"}),
    ),
    Scenario(
        name="rooms",
        title="Rooms",
        operation="message",
        text="Many small rooms in which everybody talks and hears everybody.",
        needs=frozenset({"rooms"}),
    ),
    Scenario(
        name="one_to_one",
        title="One to one",
        operation="message",
        text="Pairs of clients; each message is acknowledged to its publisher.",
        needs=frozenset({"acks"}),
    ),
    Scenario(
        name="api",
        title="HTTP API",
        operation="publish",
        text="A backend publishes over keep-alive connections, one message a request or many.",
        needs=frozenset({"api"}),
    ),
    Scenario(
        name="connect",
        title="Connecting",
        operation="connection",
        text="Connect, have the token verified where there are tokens, subscribe: a few at a time, or all at once.",
        needs=frozenset({"rooms"}),
    ),
    Scenario(
        name="recover",
        title="Recovery",
        operation="recovered message",
        text="Clients come back after a cut and are sent what they missed.",
        needs=frozenset({"recover"}),
    ),
    Scenario(
        name="latency",
        title="Latency",
        operation="message",
        text="From the time a message was due, not sent, to its arrival, at a fixed rate: a server that stalls cannot "
        "hide it by slowing the load down.",
        needs=frozenset({"fanout"}),
        axis="rate",
    ),
    Scenario(
        name="memory",
        title="Memory",
        operation="connection",
        text="Resident memory of all processes of the server per idle, subscribed connection, which is authenticated "
        "where there are tokens.",
        needs=frozenset({"rooms"}),
    ),
    Scenario(
        name="growth_subscribers",
        title="Growth: subscribers",
        operation="delivery",
        text="What one delivery costs as a channel has more subscribers.",
        needs=frozenset({"fanout"}),
        axis="subscribers",
    ),
    Scenario(
        name="growth_channels",
        title="Growth: channels",
        operation="publish",
        text="What one publish costs as there are more channels.",
        needs=frozenset({"rooms"}),
        axis="channels",
    ),
    Scenario(
        name="growth_history",
        title="Growth: history",
        operation="publish",
        text="What one publish costs as channels keep more history.",
        needs=frozenset({"recover"}),
        axis="history",
    ),
    Scenario(
        name="growth_connections",
        title="Growth: connections",
        operation="connection",
        text="What an idle connection weighs among more of them.",
        needs=frozenset({"auth"}),
        axis="connections",
    ),
    Scenario(
        name="stall",
        title="Stalls of the event loop",
        operation="fan-out",
        text="The longest time for which the server answers nobody else while it fans out.",
        needs=frozenset({"fanout"}),
    ),
)

METRICS: tuple[Metric, ...] = (
    Metric(name="cpu_us", title="CPU per {}"),
    Metric(name="times_c_loop", title="CPU per {}"),
    Metric(name="per_second", title="{} rate", greater_is_better=True),
    Metric(name="bytes", title="memory per connection"),
    Metric(name="p50_us", title="latency p50"),
    Metric(name="p99_us", title="latency p99"),
    Metric(name="p999_us", title="latency p99.9"),
    Metric(name="max_us", title="longest"),
    Metric(name="server_busy", title="server busy", compared=False),
    Metric(name="load_busy", title="load busy", compared=False),
)

PEERS: dict[str, str] = {
    "beaconfire": "Beaconfire",
    "centrifugo": "Centrifugo",
    "go-gorilla": "Go with gorilla/websocket",
    "node-ws": "Node.js with ws",
    "node-socketio": "Node.js with Socket.IO",
    "python-socketio": "python-socketio",
    "channels": "Django Channels",
    "websockets": "Python with websockets",
    "c-loop": "C loop of send()",
}
"""Titles, for reports made without `about.json`; also the order of rows."""


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Names without repetition, known ones first and in the catalogue's order."""
    ranks = {name: rank for rank, name in enumerate(known)}
    return sorted(dict.fromkeys(names), key=lambda name: ranks.get(name, len(ranks)))


def scenario(name: str) -> Scenario:
    return next((entry for entry in SCENARIOS if entry.name == name), Scenario(name=name, title=name))


def metric(name: str, scenario: Scenario) -> Metric:
    """A metric with a title that fits the scenario."""
    found = next((entry for entry in METRICS if entry.name == name), Metric(name=name, title=name))
    return msgspec.structs.replace(found, title=found.title.replace("{}", scenario.operation))
