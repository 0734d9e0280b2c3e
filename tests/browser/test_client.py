"""The browser client in a real browser, with a real server: states, reconnecting, tokens and subscriptions."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beaconfire.auth.issue import connection_token, subscription_token
from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import CONFIG, SECRET, WEBSOCKET_AND_POLL, ClientPage, call
from tests.browser.conftest import OpenClient
from tests.browser.network import Network


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, CONFIG) as process:
        yield process


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
