"""The browser client in a real browser, against a real server, over networks that let through what they like."""

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
from tests.browser.network import CollectingProxy, Network

TRANSPORTS = ("websocket", "http_stream", "sse", "poll")
OPPOSITES = ("websocket", "poll")
"""One that keeps a connection, and one that only looks like it."""
CUTS = 20
FIRST_PROBE_S, NEXT_PROBE_S = 30, 300
"""When better transports are tried at the earliest."""
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
    """Pages in contexts of their own. In the end none may have thrown an error."""
    pages: list[ClientPage] = []

    def open_one() -> ClientPage:
        page = ClientPage(browser.new_context(), server)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.page.context.close()
    assert [problem for page in pages for problem in page.problems] == []


def let_through(page: Page, transport: str, sockets: list[WebSocketRoute]) -> None:
    """Blocks the others, each in a way of networks: WebSockets open and stay silent, requests fail."""
    if transport != "websocket":
        page.route_web_socket("**/connection/websocket", lambda route: sockets.append(route))
    for other in ("http_stream", "sse", "poll"):
        if transport != other:
            page.route(f"**/connection/{other}*", lambda route: route.abort())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_talks_over_whatever_gets_through(open_client: OpenClient, transport: str) -> None:
    """Two people in a room, with presence, history and joins; what got through is what they come back with."""
    blocked: list[WebSocketRoute] = []
    ann, bob = open_client(), open_client()
    for person, user in ((ann, "ann"), (bob, "bob")):
        let_through(person.page, transport, blocked)
        person.start(user=user, openTimeoutMs=1000, retryMaxMs=100)
        person.until_entered()
        assert person.page.evaluate("client.transport") == transport
    present = set() if transport == "poll" else {ann.client_id, bob.client_id}  # between two polls nobody is there
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
    assert len(blocked) == attempts, "what is blocked was tried again"


def test_a_network_that_refuses_everything_is_tried_in_rounds(open_client: OpenClient) -> None:
    """Each transport in each round, until one gets through."""
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
def test_cuts_lose_and_double_nothing(
    open_client: OpenClient, server: ServerProcess, network: Network, transport: str
) -> None:
    """A backend publishes while the connection is ended by the server and reset by the network, in turn.

    A reset that hits a poll may go unnoticed: browsers themselves repeat a request on a connection that had been used.
    """
    ann = open_client()
    let_through(ann.page, transport, [])
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


def test_who_wants_the_latest_gets_it_and_hears_of_the_rest(
    open_client: OpenClient, server: ServerProcess, network: Network
) -> None:
    """Live and after cuts: what came and what was left out is together what was published."""
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


def test_behind_a_proxy_that_collects_answers(open_client: OpenClient, server: ServerProcess) -> None:
    """Only what ends gets through: it is found by itself, hears at once what is said, and speaks."""
    ann = open_client()
    with CollectingProxy(server.port) as proxy:
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


@pytest.mark.parametrize("transport", OPPOSITES)
def test_what_cannot_be_recovered_is_told(
    open_client: OpenClient, server: ServerProcess, network: Network, transport: str
) -> None:
    """More was missed than history holds: nothing of it comes, and the page hears that."""
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


def test_comes_back_at_once_when_the_network_does(
    open_client: OpenClient, server: ServerProcess, network: Network
) -> None:
    """However long it would still have waited."""
    ann = open_client()
    ann.start(network.url, retryFirstMs=60_000)
    ann.until_entered()
    ann.page.evaluate("Math.random = () => 1")
    with network.away():
        ann.until("client.state === 'connecting'")
        ann.page.context.set_offline(True)  # not before the cut, which Chromium then does not always notice
        call(server, "publish", channel="campfire", data="meanwhile")
    ann.page.context.set_offline(False)
    ann.until("seen.heard.length === 1")
    assert ann.page.evaluate("seen.states[2].retryAt - Date.now()") > 0


def test_connect_ends_a_wait(open_client: OpenClient, network: Network) -> None:
    """Somebody has clicked on "try now": it does, at once and once, and says that it waits no longer."""
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
def test_a_tab_that_was_frozen_for_six_minutes_goes_on(
    open_client: OpenClient, server: ServerProcess, network: Network, transport: str
) -> None:
    """Its connection is silently gone, which the clock tells at the first look; what was said meanwhile comes."""
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
    """In steps that are shorter than any deadline, so that what is on its way arrives in between."""
    for _ in range(0, seconds, 5):
        person.page.clock.fast_forward(5000)
        person.page.wait_for_timeout(50)


def test_a_better_transport_is_taken_when_it_gets_through(open_client: OpenClient, server: ServerProcess) -> None:
    """It is tried beside the one in use, which goes on until then, and nothing is lost on the way."""
    ann = open_client()
    ann.page.add_init_script("Math.random = () => 0")
    ann.page.clock.install()
    attempts: list[WebSocketRoute] = []
    let_through(ann.page, "poll", attempts)
    ann.start(openTimeoutMs=20_000, commandTimeoutMs=60_000)
    pass_time(ann, 25)
    ann.until_entered()
    assert ann.page.evaluate("client.transport") == "poll"
    with Backend(server) as backend:
        pass_time(ann, FIRST_PROBE_S - 10)
        assert len(attempts) == 1
        pass_time(ann, 10 + 25)  # that one is silent, and the others are refused
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
    assert "websocket gets through" in states[2]["reason"]


def test_shows_its_states(open_client: OpenClient, server: ServerProcess) -> None:
    """Every change, with what led to it; while it waits, until when; and none that the table does not have."""
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
    assert ann.seen("entered")[1]["recovered"] is False, "the memory engine's history is gone, and that is told"


def mint(person: ClientPage, lifetime_s: float) -> list[str]:
    """Gives the page tokens that live for so long. Returns what they were asked for: channels, "" is the connection."""
    asked: list[str] = []

    def make(channel: str) -> str:
        asked.append(channel)
        now_s = time.time()
        if channel:
            return subscription_token(SECRET, "ann", channel, now_unix_s=now_s, expires_in_s=lifetime_s)
        return connection_token(SECRET, "ann", now_unix_s=now_s, expires_in_s=lifetime_s)

    person.page.expose_function("mint", make)
    return asked


@pytest.mark.parametrize("transport", OPPOSITES)
def test_tokens_are_renewed_before_they_end(open_client: OpenClient, transport: str) -> None:
    """Connection and subscription live on for much longer than their tokens, without an interruption."""
    ann = open_client()
    asked = mint(ann, 4)
    ann.start(channel="$vault", own={"mint": True}, mint=True, transports=[transport])
    ann.until_entered()
    ann.until("(window.begun ??= Date.now()) < Date.now() - 8000")
    assert [change["state"] for change in ann.seen("states")] == ["connecting", "connected"]
    assert [change["state"] for change in ann.seen("room")] == ["subscribing", "subscribed"]
    assert asked.count("") >= 3
    assert asked.count("$vault") >= 3


@pytest.mark.parametrize("transport", OPPOSITES)
def test_a_token_that_has_ended_is_replaced(open_client: OpenClient, transport: str) -> None:
    """As after a long sleep: refused, and back with a new one."""
    ann = open_client()
    asked = mint(ann, 60)
    old = connection_token(SECRET, "ann", now_unix_s=time.time() - 100, expires_in_s=10)
    ann.start(mint=True, token=old, transports=[transport])
    ann.until_entered()
    assert asked == [""]
    assert [change["code"] for change in ann.seen("states")] == [0, 109, 0]


@pytest.mark.parametrize("transport", OPPOSITES)
def test_a_token_that_has_ended_and_has_no_successor_is_the_end(open_client: OpenClient, transport: str) -> None:
    """It says so instead of trying for ever. So does a page whose `getToken` has none."""
    old = connection_token(SECRET, "ann", now_unix_s=time.time() - 100, expires_in_s=10)
    ann, bob = open_client(), open_client()
    ann.start(token=old, transports=[transport])
    bob.page.expose_function("mint", lambda channel: "")
    bob.start(mint=True, transports=[transport])
    for person, code in ((ann, 109), (bob, 101)):
        person.until("client.state === 'disconnected'")
        assert person.seen("states")[-1]["code"] == code


@pytest.mark.parametrize("transport", OPPOSITES)
def test_a_final_code_is_final_and_told(open_client: OpenClient, transport: str) -> None:
    """No attempt follows, commands fail, and `connect` leads out of it."""
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


@pytest.mark.parametrize("transport", OPPOSITES)
def test_a_refused_room_is_told_and_the_others_go_on(open_client: OpenClient, transport: str) -> None:
    """An error that trying again does not mend; and what the server takes away stays away."""
    ann = open_client()
    ann.start(channel="closed:room", user="ann", transports=[transport])
    ann.until("room.state === 'unsubscribed'")
    last = ann.seen("room")[-1]
    assert (last["code"], last["reason"]) == (103, "permission denied")
    ann.page.evaluate("Object.assign(window, { open: client.subscription('open') }).open.subscribe()")
    ann.until("open.state === 'subscribed'")
    ann.act("unsubscribe", "open.state === 'unsubscribed'", channel="open")
    assert ann.page.evaluate("client.state") == "connected"


@pytest.mark.parametrize("transport", OPPOSITES)
def test_leaving_and_entering_in_one_breath(open_client: OpenClient, server: ServerProcess, transport: str) -> None:
    """Whatever is on its way, the last word counts, and nothing of the time between is heard twice."""
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


@pytest.mark.parametrize("transport", OPPOSITES)
def test_channels_that_the_server_chose(
    open_client: OpenClient, server: ServerProcess, network: Network, transport: str
) -> None:
    """By the token and by the API: heard on the client, and recovered as any other."""
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


def test_an_event_source_without_a_library_resumes(
    open_client: OpenClient, server: ServerProcess, network: Network
) -> None:
    """The browser's own reconnecting, with `Last-Event-ID`, loses nothing over cuts; offsets show what is repeated."""
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
