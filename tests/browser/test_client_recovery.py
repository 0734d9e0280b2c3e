"""The browser client recovers missed publications after interruptions, over networks that fail."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from beaconfire.auth.issue import connection_token
from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import CONFIG, SECRET, TRANSPORTS, WEBSOCKET_AND_POLL, Backend, allow_only, call
from tests.browser.conftest import OpenClient
from tests.browser.network import Network

CUTS = 20
SIX_MINUTES_MS = 6 * 60 * 1000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, CONFIG) as process:
        yield process


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
