"""The browser client selects a transport, on networks that block or delay some of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Route, WebSocketRoute

from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import CONFIG, TRANSPORTS, Backend, ClientPage, allow_only
from tests.browser.conftest import OpenClient
from tests.browser.network import BufferingProxy

FIRST_PROBE_S, NEXT_PROBE_S = 30, 300
"""The earliest times of the first and second probe of better transports."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, CONFIG) as process:
        yield process


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_works_over_every_transport(open_client: OpenClient, transport: str) -> None:
    """Two clients exchange messages with presence, history and joins, and reconnect over the transport that worked."""
    blocked: list[WebSocketRoute] = []
    ann, bob = open_client(), open_client()
    for person, user in ((ann, "ann"), (bob, "bob")):
        allow_only(person.page, transport, blocked)
        person.start(user=user, openTimeoutMs=1000, retryMaxMs=100)
        person.until_entered()
        assert person.page.evaluate("client.transport") == transport
    present = (
        set() if transport == "poll" else {ann.client_id, bob.client_id}
    )  # between two polls a client has no session
    ann.until(f"seen.joined.length === {len(present)}")
    for person, text in ((ann, "hello"), (bob, "看到了 👍"), (ann, "x" * 20_000)):
        person.page.evaluate("(text) => room.publish({ text })", text)
    for person in (ann, bob):
        person.until("seen.heard.length === 3")
        assert [data["text"] for data in person.seen("heard")] == ["hello", "看到了 👍", "x" * 20_000]
    assert set(ann.page.evaluate("room.presence()")) == present
    assert ann.page.evaluate("room.presenceStats()") == {"numClients": len(present), "numUsers": len(present)}
    page = ann.page.evaluate("room.history({ limit: 1, reverse: true })")
    assert [pub["data"]["text"] for pub in page["publications"]] == ["x" * 20_000]
    attempts = len(blocked)
    ann.disconnect(3011)
    ann.until_entered(2)
    assert ann.page.evaluate("client.transport") == transport
    assert len(blocked) == attempts, "a blocked transport was tried again"


def test_blocked_transports_are_tried_in_rounds(open_client: OpenClient) -> None:
    """The client tries each transport in each round, until one works."""
    ann = open_client()
    tried: list[str] = []

    def refuse(route: WebSocketRoute) -> None:
        tried.append("websocket")
        route.close(code=1011)

    ann.page.route_web_socket("**/connection/websocket", refuse)

    def abort(route: Route) -> None:
        tried.append(re.split("[/?]", route.request.url)[4])
        if len(tried) >= 3 * len(TRANSPORTS):
            route.continue_()
        else:
            route.abort()

    ann.page.route(re.compile("/connection/(http_stream|sse|poll)"), abort)
    ann.start(retryFirstMs=50)
    ann.until_entered()
    assert tried[: 3 * len(TRANSPORTS)] == [*TRANSPORTS, *TRANSPORTS, *TRANSPORTS]
    assert ann.page.evaluate("client.transport") == TRANSPORTS[-1]
    assert len([change for change in ann.seen("states") if change["previous"] == "connecting"]) == 3


def test_polling_works_behind_a_buffering_proxy(open_client: OpenClient, server: ServerProcess) -> None:
    """Only complete responses pass: the client selects polling, and receives and sends messages without delay."""
    ann = open_client()
    with BufferingProxy(server.port) as proxy:
        ann.start(proxy.url, openTimeoutMs=1000)
        ann.until_entered()
        assert ann.page.evaluate("client.transport") == "poll"
        with Backend(server, pause_s=0.05) as backend:
            ann.until("seen.heard.length > 5")
            published = backend.stop()
        ann.until(f"seen.heard.at(-1) === {published[-1]}")
        assert ann.seen("heard") == published
        ann.page.evaluate("room.publish('said')")
        ann.until("seen.heard.at(-1) === 'said'")
        ann.page.evaluate("client.disconnect()")


def pass_time(person: ClientPage, seconds: int) -> None:
    """Advances the clock in steps that are shorter than any timeout, so that messages in transit arrive in between."""
    for _ in range(0, seconds, 5):
        person.page.clock.fast_forward(5000)
        person.page.wait_for_timeout(50)


def test_switches_to_a_better_transport(open_client: OpenClient, server: ServerProcess) -> None:
    """The client tests it next to the current connection, which continues until then, and loses nothing."""
    ann = open_client()
    ann.page.add_init_script("Math.random = () => 0")
    ann.page.clock.install()
    attempts: list[WebSocketRoute] = []
    allow_only(ann.page, "poll", attempts)
    ann.start(openTimeoutMs=20_000, commandTimeoutMs=60_000)
    pass_time(ann, 25)
    ann.until_entered()
    assert ann.page.evaluate("client.transport") == "poll"
    with Backend(server) as backend:
        pass_time(ann, FIRST_PROBE_S - 10)
        assert len(attempts) == 1
        pass_time(ann, 10 + 25)  # WebSocket stays silent, and the other transports are refused
        assert len(attempts) == 2
        ann.page.route_web_socket("**/connection/websocket", WebSocketRoute.connect_to_server)
        pass_time(ann, NEXT_PROBE_S)
        ann.until_entered(2)
        published = backend.stop()
    ann.until(f"seen.heard.at(-1) === {published[-1]}")
    assert ann.seen("heard") == published
    assert ann.seen("entered")[1]["recovered"] is True
    states = ann.seen("states")
    assert [(change["state"], change["transport"]) for change in states] == [
        ("connecting", ""),
        ("connected", "poll"),
        ("connecting", ""),
        ("connected", "websocket"),
    ]
    assert "websocket is available" in states[2]["reason"]
