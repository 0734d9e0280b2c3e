"""The browser client in a real browser, with a real server, over networks with blocked transports and failures."""

from __future__ import annotations

import itertools
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute

from beaconfire.auth.issue import connection_token, subscription_token
from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import CONFIG, SECRET, Backend, ClientPage, call
from tests.browser.network import BufferingProxy, Network

TRANSPORTS = ("websocket", "http_stream", "sse", "poll")
WEBSOCKET_AND_POLL = ("websocket", "poll")
"""A transport with a real connection, and the polling transport."""
CUTS = 20
FIRST_PROBE_S, NEXT_PROBE_S = 30, 300
"""The earliest times of the first and second probe of better transports."""
SIX_MINUTES_MS = 6 * 60 * 1000

OpenClient = Callable[[], ClientPage]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, CONFIG) as process:
        yield process


@pytest.fixture
def network(server: ServerProcess) -> Iterator[Network]:
    with Network(server.port) as network:
        yield network


@pytest.fixture
def open_client(browser: Browser, server: ServerProcess) -> Iterator[OpenClient]:
    """Opens pages in separate contexts. At the end no page may have thrown an error."""
    pages: list[ClientPage] = []

    def open_one() -> ClientPage:
        page = ClientPage(browser.new_context(), server)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.page.context.close()
    assert [problem for page in pages for problem in page.problems] == []


def allow_only(page: Page, transport: str, sockets: list[WebSocketRoute]) -> None:
    """Blocks all other transports as networks do: WebSockets open and stay silent, requests fail."""
    if transport != "websocket":
        page.route_web_socket("**/connection/websocket", lambda route: sockets.append(route))
    for other in ("http_stream", "sse", "poll"):
        if transport != other:
            page.route(f"**/connection/{other}*", lambda route: route.abort())


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


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_interruptions_lose_and_duplicate_nothing(
    open_client: OpenClient, server: ServerProcess, network: Network, transport: str
) -> None:
    """A backend publishes while the server closes the connection and the network resets it, in turn.

    The client may not notice a reset during a poll: browsers themselves repeat a request on a reused connection.
    """
    ann = open_client()
    allow_only(ann.page, transport, [])
    ann.start(network.url, user="ann", openTimeoutMs=2000, retryMaxMs=50)
    ann.until_entered()
    with Backend(server) as backend:
        for number in range(CUTS):
            entered, heard = len(ann.seen("entered")), len(ann.seen("heard"))
            if number % 2:
                network.cut()
            else:
                ann.disconnect(3011)
            if number % 2 == 0 or transport != "poll":
                ann.until_entered(entered + 1)
            ann.until(f"seen.heard.length > {heard}")
        published = backend.stop()
    ann.until(f"seen.heard.at(-1) === {published[-1]}")
    assert ann.seen("heard") == published
    entered = ann.seen("entered")
    assert [event["recovered"] for event in entered] == [False] + [True] * (len(entered) - 1)
    assert [event["wasRecovering"] for event in entered] == [False] + [True] * (len(entered) - 1)


def test_conflation_delivers_the_latest_and_counts_the_others(
    open_client: OpenClient, server: ServerProcess, network: Network
) -> None:
    """Live and after interruptions: received and left out publications together are all that were published."""
    ann = open_client()
    ann.start(network.url, own={"conflate": {"maxRate": 10}}, retryMaxMs=50)
    ann.until_entered()
    with Backend(server) as backend:
        for number in range(3):
            ann.until(f"seen.heard.length >= {5 * (number + 1)}")
            network.cut()
            ann.until_entered(number + 2)
        published = backend.stop()
    ann.until(f"seen.heard.at(-1) === {published[-1]}")
    heard, left_out = ann.seen("heard"), ann.seen("leftOut")
    assert len(heard) < len(published) / 2
    assert [number + 1 for number in heard] == list(itertools.accumulate(count + 1 for count in left_out))
    assert all(event["recovered"] for event in ann.seen("entered")[1:])


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


@pytest.mark.parametrize("transport", WEBSOCKET_AND_POLL)
def test_failed_recovery_is_reported(
    open_client: OpenClient, server: ServerProcess, network: Network, transport: str
) -> None:
    """More publications were missed than history keeps: none arrives, and `recovered` is false."""
    ann = open_client()
    ann.start(network.url, channel="short:news", transports=[transport], retryMaxMs=100)
    ann.until_entered()
    with network.away():
        ann.until("client.state === 'connecting'")
        for number in range(5):
            call(server, "publish", channel="short:news", data=number)
    ann.until_entered(2)
    call(server, "publish", channel="short:news", data="after")
    ann.until("seen.heard.length > 0")
    assert ann.seen("heard") == ["after"]
    event = ann.seen("entered")[-1]
    assert (event["wasRecovering"], event["recovered"]) == (True, False)


def test_reconnects_at_once_when_the_network_returns(
    open_client: OpenClient, server: ServerProcess, network: Network
) -> None:
    """The remaining retry delay does not matter."""
    ann = open_client()
    ann.start(network.url, retryFirstMs=60_000)
    ann.until_entered()
    ann.page.evaluate("Math.random = () => 1")
    with network.away():
        ann.until("client.state === 'connecting'")
        ann.page.context.set_offline(True)  # after the interruption; otherwise Chromium does not always notice it
        call(server, "publish", channel="campfire", data="meanwhile")
    ann.page.context.set_offline(False)
    ann.until("seen.heard.length === 1")
    assert ann.page.evaluate("seen.states[2].retryAt - Date.now()") > 0


def test_connect_ends_a_retry_delay(open_client: OpenClient, network: Network) -> None:
    """`connect` starts the next attempt at once and only once, and the state event has no `retryAt`."""
    ann = open_client()
    ann.start(network.url, retryFirstMs=60_000)
    ann.until_entered()
    ann.page.evaluate("Math.random = () => 1")
    network.cut()
    ann.until("client.state === 'connecting'")
    before = network.connections
    ann.page.evaluate("client.on('state', () => client.connect()), client.connect(), client.connect()")
    ann.until_entered(2)
    states = ann.seen("states")
    assert [(change["state"], change["retryAt"] > 0) for change in states[2:]] == [
        ("connecting", True),
        ("connecting", False),
        ("connected", False),
    ]
    assert network.connections == before + 1


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_tab_suspended_for_six_minutes_recovers(
    open_client: OpenClient, server: ServerProcess, network: Network, transport: str
) -> None:
    """The client detects by the clock that its connection is dead, reconnects and recovers the missed messages."""
    ann = open_client()
    ann.page.clock.install()
    ann.start(network.url, transports=[transport], openTimeoutMs=1000, retryMaxMs=100)
    ann.until_entered()
    call(server, "publish", channel="campfire", data="before")
    ann.until("seen.heard.length === 1")
    network.die()
    for number in range(20):
        call(server, "publish", channel="campfire", data=number)
    ann.page.wait_for_timeout(200)
    assert ann.seen("heard") == ["before"]
    ann.page.clock.fast_forward(SIX_MINUTES_MS)
    ann.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    ann.until_entered(2)
    ann.until("seen.heard.length === 21")
    assert ann.seen("heard") == ["before", *range(20)]
    lost = next(change for change in ann.seen("states") if change["previous"] == "connected")
    assert "silent" in lost["reason"]


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


def test_state_events_follow_the_table(open_client: OpenClient, server: ServerProcess) -> None:
    """Every change is reported with its cause and the time of the next attempt; no change outside the table occurs."""
    ann = open_client()
    ann.start(retryFirstMs=200)
    ann.until_entered()
    server.stop(signal.SIGKILL)
    ann.until("client.state === 'connecting' && seen.states.at(-1).retryAt > Date.now()")
    assert ann.page.evaluate("room.state") == "subscribing"
    server.start()
    ann.until_entered(2)
    ann.page.evaluate("client.disconnect()")
    states = ann.seen("states")
    steps = [(change["previous"], change["state"]) for change in states]
    assert steps[:2] == [("idle", "connecting"), ("connecting", "connected")]
    assert steps[2] == ("connected", "connecting")
    assert set(steps[3:-2]) <= {("connecting", "connecting")}
    assert steps[-2:] == [("connecting", "connected"), ("connected", "idle")]
    assert [change["transport"] for change in states if change["state"] == "connected"] == ["websocket", "websocket"]
    assert states[2]["retryAt"] > 0
    table = ann.page.evaluate("import('/client/beaconfire.js').then(({ STATES }) => STATES)")
    assert set(steps) <= {(state, to) for state, row in table.items() for to in row.values()}
    rooms = [change["state"] for change in ann.seen("room")]
    assert [state for state, _ in itertools.groupby(rooms)] == ["subscribing", "subscribed"] * 2 + ["subscribing"]
    assert ann.seen("entered")[1]["recovered"] is False, (
        "the history of the memory engine is lost, and the event says so"
    )


def mint(person: ClientPage, lifetime_s: float) -> list[str]:
    """Provides tokens with this lifetime. Returns the list of requested channels; "" is the connection."""
    asked: list[str] = []

    def make(channel: str) -> str:
        asked.append(channel)
        now_s = time.time()
        if channel:
            return subscription_token(SECRET, "ann", channel, now_unix_s=now_s, expires_in_s=lifetime_s)
        return connection_token(SECRET, "ann", now_unix_s=now_s, expires_in_s=lifetime_s)

    person.page.expose_function("mint", make)
    return asked


@pytest.mark.parametrize("transport", WEBSOCKET_AND_POLL)
def test_tokens_are_refreshed_before_they_expire(open_client: OpenClient, transport: str) -> None:
    """Connection and subscription last much longer than their tokens, without interruption."""
    ann = open_client()
    asked = mint(ann, 4)
    ann.start(channel="$vault", own={"mint": True}, mint=True, transports=[transport])
    ann.until_entered()
    ann.until("(window.begun ??= Date.now()) < Date.now() - 8000")
    assert [change["state"] for change in ann.seen("states")] == ["connecting", "connected"]
    assert [change["state"] for change in ann.seen("room")] == ["subscribing", "subscribed"]
    assert asked.count("") >= 3
    assert asked.count("$vault") >= 3


@pytest.mark.parametrize("transport", WEBSOCKET_AND_POLL)
def test_an_expired_token_is_replaced(open_client: OpenClient, transport: str) -> None:
    """As after a long suspension: the server refuses the token, and the client reconnects with a new one."""
    ann = open_client()
    asked = mint(ann, 60)
    old = connection_token(SECRET, "ann", now_unix_s=time.time() - 100, expires_in_s=10)
    ann.start(mint=True, token=old, transports=[transport])
    ann.until_entered()
    assert asked == [""]
    assert [change["code"] for change in ann.seen("states")] == [0, 109, 0]


@pytest.mark.parametrize("transport", WEBSOCKET_AND_POLL)
def test_an_expired_token_without_successor_disconnects(open_client: OpenClient, transport: str) -> None:
    """The client reports it and does not retry. The same holds if `getToken` returns no token."""
    old = connection_token(SECRET, "ann", now_unix_s=time.time() - 100, expires_in_s=10)
    ann, bob = open_client(), open_client()
    ann.start(token=old, transports=[transport])
    bob.page.expose_function("mint", lambda channel: "")
    bob.start(mint=True, transports=[transport])
    for person, code in ((ann, 109), (bob, 101)):
        person.until("client.state === 'disconnected'")
        assert person.seen("states")[-1]["code"] == code


@pytest.mark.parametrize("transport", WEBSOCKET_AND_POLL)
def test_a_final_code_disconnects_without_retry(open_client: OpenClient, transport: str) -> None:
    """No attempt follows, commands fail, and `connect` starts again."""
    ann = open_client()
    ann.start(user="ann", transports=[transport], retryFirstMs=1)
    ann.until_entered()
    ann.disconnect(3503, "go home")
    ann.until("client.state === 'disconnected'")
    ann.page.wait_for_timeout(300)
    last = ann.seen("states")[-1]
    assert (last["state"], last["code"], last["reason"]) == ("disconnected", 3503, "go home")
    failure = "(error) => [error.name, error.temporary, error.uncertain]"
    assert ann.page.evaluate(f"client.publish('campfire', 1).catch({failure})") == ["ClientError", False, False]
    ann.page.evaluate("client.connect()")
    ann.until_entered(2)
    assert ann.seen("entered")[1]["recovered"] is True


@pytest.mark.parametrize("transport", WEBSOCKET_AND_POLL)
def test_a_refused_subscription_does_not_affect_others(open_client: OpenClient, transport: str) -> None:
    """A permanent error, or an unsubscribe by the server, ends one subscription; other subscriptions continue."""
    ann = open_client()
    ann.start(channel="closed:room", user="ann", transports=[transport])
    ann.until("room.state === 'unsubscribed'")
    last = ann.seen("room")[-1]
    assert (last["code"], last["reason"]) == (103, "permission denied")
    ann.page.evaluate("Object.assign(window, { open: client.subscription('open') }).open.subscribe()")
    ann.until("open.state === 'subscribed'")
    ann.act("unsubscribe", "open.state === 'unsubscribed'", channel="open")
    assert ann.page.evaluate("client.state") == "connected"


@pytest.mark.parametrize("transport", WEBSOCKET_AND_POLL)
def test_the_last_of_several_subscribe_calls_counts(
    open_client: OpenClient, server: ServerProcess, transport: str
) -> None:
    """After quick unsubscribe and subscribe calls the last one takes effect, and no publication arrives twice."""
    ann = open_client()
    ann.start(transports=[transport])
    ann.page.evaluate("for (let i = 0; i < 5; i++) { room.unsubscribe(); room.subscribe(); }")
    ann.until_entered()
    ann.page.evaluate("for (let i = 0; i < 5; i++) { room.unsubscribe(); room.subscribe(); }")
    ann.until_entered(2)
    call(server, "publish", channel="campfire", data="once")
    ann.until("seen.heard.length > 0")
    ann.page.evaluate("room.unsubscribe()")
    ann.page.wait_for_timeout(100)
    call(server, "publish", channel="campfire", data="not heard")
    ann.page.evaluate("client.presence('campfire').catch(() => 0)")
    assert ann.seen("heard") == ["once"]
    assert [change["state"] for change in ann.seen("states")] == ["connecting", "connected"]


@pytest.mark.parametrize("transport", WEBSOCKET_AND_POLL)
def test_server_side_subscriptions_recover(
    open_client: OpenClient, server: ServerProcess, network: Network, transport: str
) -> None:
    """By the token and by the API: the client emits their events, and they recover like others."""
    ann = open_client()
    token = connection_token(SECRET, "ann", now_unix_s=time.time(), channels=["news"])
    ann.start(network.url, user="ann", token=token, transports=[transport], retryMaxMs=100)
    ann.until_entered()
    ann.act("subscribe", "seen.granted.length === 2", channel="orders")
    with network.away():
        ann.until("client.state === 'connecting'")
        for channel in ("news", "orders"):
            call(server, "publish", channel=channel, data=f"missed in {channel}")
    ann.until("seen.server.length === 2")
    assert sorted(ann.seen("server")) == ["missed in news", "missed in orders"]
    assert [event["recovered"] for event in ann.seen("granted")] == [False, False, True, True]


def test_a_native_event_source_resumes(open_client: OpenClient, server: ServerProcess, network: Network) -> None:
    """The browser's own reconnect with `Last-Event-ID` loses nothing; offsets identify repeated publications."""
    ann = open_client()
    ann.page.goto(f"{server.http}/health")
    request = json.dumps({"subs": {"campfire": {}}})
    ann.page.evaluate(
        """([url, request]) => {
          window.seen = { heard: [], connects: [] };
          let last = 0;
          const address = `${url}/connection/uni_sse?cf_connect=${encodeURIComponent(request)}`;
          new EventSource(address).onmessage = (event) => {
            const message = JSON.parse(event.data);
            const sub = message.connect?.subs.campfire;
            if (sub) seen.connects.push(sub.recovered ?? false);
            for (const { offset, data } of sub?.publications ?? (message.pub ? [message.pub] : [])) {
              if (offset > last) seen.heard.push(data);
              last = Math.max(last, offset);
            }
          };
        }""",
        [network.url, request],
    )
    ann.until("seen.connects.length === 1")
    with Backend(server, pause_s=0.05) as backend:
        for cut in range(4):
            ann.until(f"seen.heard.at(-1) >= {backend.published}")
            network.cut()
            ann.until(f"seen.connects.length === {cut + 2}")
        published = backend.stop()
    ann.until(f"seen.heard.at(-1) === {published[-1]}")
    assert ann.seen("heard") == published
    assert ann.seen("connects") == [False, True, True, True, True]
