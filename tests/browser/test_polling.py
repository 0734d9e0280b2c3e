"""The browser client with the polling transport and a scripted server: it must work like one connection."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route

from beaconfire.auth.issue import subscription_token
from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import CONFIG, SECRET, Backend, ClientPage, call
from tests.browser.scripted import Message

ROOM = "campfire"
POLL, COMMANDS = "**/connection/poll", "**/connection/commands"
PUBLIC = """
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"""
CHANNELS = f"""
[namespaces.latest]
history_size = 1
history_ttl = "300s"
force_recovery = true
force_recovery_mode = "cache"
{PUBLIC}
[namespaces.onrequest]
history_size = 10
history_ttl = "300s"
allow_recovery = true
{PUBLIC}
[namespaces.members]
allow_publish_for_subscriber = true
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("server")
    with ServerProcess(folder, CONFIG + CHANNELS) as process:
        yield process


class Polls:
    """A scripted server for polls. Each poll waits until `answer`, except for the first one."""

    def __init__(self, page: Page) -> None:
        self.server_side: Message = {}
        """The `subs` of the first response."""
        self.position = {"recover": True, "offset": 0, "epoch": "e"}
        self.reply: Callable[[str, Message], Message] = _agree
        self.requests: list[Message] = []
        self.commands: list[Message] = []
        self._waiting: list[Route] = []
        page.route(POLL, self._poll)
        page.route(COMMANDS, self._execute)

    @property
    def subs(self) -> Message:
        """The `subs` of the newest poll."""
        subs: Message = self.requests[-1].get("subs", {})
        return subs

    def answer(self, results: Message, *pushes: Message, subs: Message | None = None) -> None:
        connect = {"client": f"c{len(self.requests)}", "version": "scripted", "ping": 25, "subs": results}
        where = dict.fromkeys(results, self.position) if subs is None else subs
        body = json.dumps({"messages": [{"connect": connect}, *pushes], "subs": where})
        self._waiting.pop().fulfill(body=body, content_type="application/json")

    def _poll(self, route: Route) -> None:
        self.requests.append(json.loads(route.request.post_data or ""))
        self._waiting = [route]
        if self.requests[-1]["wait"] == 0:
            self.answer(self.server_side)

    def _execute(self, route: Route) -> None:
        request = json.loads(route.request.post_data or "")
        self.commands.append(request)
        commands = [next(iter(command.items())) for command in request["commands"]]
        replies = [{"id": number, **self.reply(*command)} for number, command in enumerate(commands, 2)]
        route.fulfill(body=json.dumps({"replies": replies}), content_type="application/json")


def _agree(kind: str, request: Message) -> Message:
    """Accepts every command. A subscription starts at the beginning or at its position."""
    if kind != "subscribe":
        return {kind: {}}
    place = {"offset": request.get("offset", 0), "epoch": request.get("epoch", "e")}
    return {kind: {"recoverable": True, "positioned": True, "recovered": "recover" in request, **place}}


def pub(channel: str, offset: int) -> Message:
    return {"channel": channel, "pub": {"data": offset, "offset": offset}}


def start(ann: ClientPage, polls: Polls, **options: Any) -> None:
    """Connects and subscribes, and waits for the first poll with the room."""
    ann.start(transports=["poll"], retryMaxMs=50, **options)
    ann.until_entered()
    until(ann, lambda: ROOM in polls.subs)


def until(ann: ClientPage, happened: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end_s, ann.seen("states")
        ann.page.wait_for_timeout(10)


def test_missed_publications_come_before_live_ones(ann: ClientPage) -> None:
    """Publications of the connect result are first; the next request has the positions of the last response."""
    polls = Polls(ann.page)
    start(ann, polls)
    assert polls.requests[-1]["wait"] == 25
    missed = {"recoverable": True, "recovered": True, "publications": [{"data": n, "offset": n} for n in (1, 2)]}
    where = {ROOM: {"recover": True, "offset": 3, "epoch": "e"}}
    polls.answer({ROOM: missed}, pub(ROOM, 3), subs=where)
    ann.until("seen.heard.length === 3")
    until(ann, lambda: polls.subs == where)
    assert ann.seen("heard") == [1, 2, 3]
    assert ann.page.evaluate("room.position.offset") == 3


def test_an_aborted_poll_is_repeated_from_the_same_position(ann: ClientPage) -> None:
    """A subscribe to another channel aborts the poll; the next poll starts from the same position."""
    polls = Polls(ann.page)
    start(ann, polls)
    ann.page.evaluate("client.subscription('other').subscribe()")
    until(ann, lambda: "other" in polls.subs)
    assert polls.subs == {ROOM: polls.position, "other": polls.position}
    assert polls.commands[-1]["subs"] == {ROOM: {}}, "the server needs all channels to apply the channel limit"
    count = len(polls.commands)
    ann.page.evaluate("client.subscription('other').unsubscribe()")
    until(ann, lambda: "other" not in polls.subs)
    assert len(polls.commands) == count, "an unsubscribe needs no request"
    polls.answer({ROOM: {"recoverable": True, "recovered": True}}, pub("other", 1), pub(ROOM, 1))
    ann.until("seen.heard.length === 1")
    assert ann.page.evaluate("client.subscription('other').position") is None


def test_a_gap_between_two_polls_is_reported(ann: ClientPage) -> None:
    """The subscription subscribes again from its position, and the page receives the result `recovered: false`."""
    polls = Polls(ann.page)
    start(ann, polls)
    polls.reply = lambda kind, request: {kind: {"recoverable": True, "epoch": "e", "offset": 7, "was_recovering": True}}
    polls.answer({ROOM: {"recoverable": True, "was_recovering": True, "offset": 7, "epoch": "e"}}, pub(ROOM, 8))
    ann.until_entered(2)
    assert [change["code"] for change in ann.seen("room") if change["previous"] == "subscribed"] == [2500]
    assert [(event["wasRecovering"], event["recovered"]) for event in ann.seen("entered")] == [
        (False, False),
        (True, False),
    ]
    assert ann.seen("heard") == []
    assert len(ann.seen("states")) == 2, "the connection goes on"


def test_a_gap_in_a_server_side_subscription_ends_the_connection(ann: ClientPage) -> None:
    """As over any transport: the next connect sends the position and reports the result."""
    polls = Polls(ann.page)
    polls.server_side = {"news": {"recoverable": True, "epoch": "e"}}
    start(ann, polls)
    room = {ROOM: {"recoverable": True, "recovered": True}}
    polls.server_side = {"news": {"recoverable": True, "was_recovering": True, "offset": 7, "epoch": "e"}}
    polls.answer({**room, **polls.server_side}, pub(ROOM, 1))
    ann.until_entered(2)
    assert [change["code"] for change in ann.seen("states") if change["previous"] == "connected"] == [3010]
    assert [event["recovered"] for event in ann.seen("granted")] == [False, False]
    assert polls.requests[-2]["subs"] == {"news": {"recover": True, "offset": 0, "epoch": "e"}}
    assert ann.seen("heard") == []


def test_server_side_subscriptions_are_added_and_removed(ann: ClientPage) -> None:
    """By a response with more or fewer of them, or by a push; each change is an event."""
    polls = Polls(ann.page)
    polls.server_side = {"news": {}}
    start(ann, polls)
    room = {ROOM: {"recoverable": True, "recovered": True}}
    ann.page.evaluate("void client.on('unsubscribed', ({ channel }) => seen.server.push(`left ${channel}`))")
    pushed = {"channel": "pushed", "subscribe": {}}
    polls.answer({**room, "orders": {}}, pushed, pub("pushed", 1), subs={ROOM: polls.position, "orders": {}})
    ann.until("seen.server.length === 2")
    assert ann.seen("server") == ["left news", 1]
    assert [event["channel"] for event in ann.seen("granted")] == ["news", "orders", "pushed"]
    until(ann, lambda: set(polls.subs) == {ROOM, "orders", "pushed"})
    polls.answer({**room, "orders": {}}, {"channel": "orders", "unsubscribe": {"code": 2000}}, pub("orders", 2))
    ann.until("seen.server.length === 4")
    assert ann.seen("server")[2:] == ["left pushed", "left orders"]
    until(ann, lambda: set(polls.subs) == {ROOM})


def test_a_revoked_channel_is_subscribed_again_and_refused(ann: ClientPage) -> None:
    """After an expired token or a changed permission the client subscribes with a new token and reports the error."""
    polls = Polls(ann.page)
    ann.page.expose_function("mint", lambda channel: f"token{len(polls.commands)}")
    start(ann, polls, own={"mint": True})
    assert polls.subs[ROOM]["token"] == "token0"
    polls.reply = lambda kind, request: {"error": {"code": 103, "message": "permission denied"}}
    polls.answer({}, pub(ROOM, 1))
    ann.until("room.state === 'unsubscribed'")
    assert [change["code"] for change in ann.seen("room")] == [0, 0, 2501, 103]
    assert polls.commands[-1]["commands"][0]["subscribe"]["token"] == "token1"
    assert ann.seen("heard") == []


def test_empty_responses_count_as_pings(ann: ClientPage) -> None:
    """The connection lasts as long as they arrive, and ends when one is missing."""
    polls = Polls(ann.page)
    ann.page.clock.install()
    start(ann, polls)
    for _ in range(3):
        ann.page.clock.run_for(25_000)
        count = len(polls.requests)
        polls.answer({ROOM: {"recoverable": True, "recovered": True}})
        until(ann, lambda: len(polls.requests) > count)  # noqa: B023  # it is called here
    assert len(ann.seen("states")) == 2
    ann.page.clock.run_for(36_000)
    ann.until("seen.states.length >= 4")
    assert "silent" in ann.seen("states")[2]["reason"]


def test_commands_without_a_response_end_the_connection(ann: ClientPage) -> None:
    """Later commands would wait endlessly, because polls continue and do not detect the problem."""
    polls = Polls(ann.page)
    ann.page.clock.install()
    start(ann, polls)
    ann.page.route(COMMANDS, lambda route: None, times=1)
    ann.page.evaluate("void client.publish('x', 1).catch((error) => (seen.uncertain = error.uncertain))")
    ann.page.clock.run_for(20_000)
    ann.until("seen.uncertain")
    assert len(ann.seen("states")) == 2
    ann.page.clock.run_for(11_000)
    ann.until("seen.states.length > 2")
    assert "commands" in ann.seen("states")[2]["reason"]
    ann.page.clock.run_for(1_000)
    ann.until_entered(2)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, "<html>Please log in</html>", 0),
        (200, "null", 0),
        (200, '{"messages":[],"subs":{}}', 0),
        (502, "", 0),
        (401, '{"disconnect":{"code":3005,"reason":"connection expired"}}', 3005),
        (503, '{"disconnect":{"code":3001,"reason":"shutdown"}}', 3001),
        (413, "too large", 1009),
        (403, '{"disconnect":{"code":3503,"reason":"go home"}}', 3503),
    ],
)
@pytest.mark.parametrize("path", [POLL, COMMANDS])
def test_invalid_responses_end_the_connection(ann: ClientPage, path: str, status: int, body: str, code: int) -> None:
    """With the server's code if there is one; the client retries if the code allows it."""
    polls = Polls(ann.page)
    start(ann, polls)
    ann.page.route(path, lambda route: route.fulfill(status=status, body=body), times=1)
    ann.page.evaluate("void client.publish('x', 1).catch(() => 0)")
    if path == POLL:
        polls.answer({ROOM: {"recoverable": True, "recovered": True}})
    ann.until("seen.states.length > 2")
    lost = ann.seen("states")[2]
    assert (lost["previous"], lost["code"]) == ("connected", code)
    if lost["state"] == "connecting":
        ann.until_entered(2)
    assert (lost["state"] == "disconnected") is (code in {1009, 3503})


# --- with a real server


def test_many_commands_keep_their_order(ann: ClientPage, server: ServerProcess) -> None:
    """More commands of one task than one request may carry."""
    ann.start(transports=["poll"], channel="flood")
    ann.until_entered()
    ann.page.evaluate("Promise.all([...Array(250).keys()].map((number) => room.publish(number)))")
    ann.until("seen.heard.length === 250")
    assert ann.seen("heard") == list(range(250))


def test_subscribing_to_another_channel_loses_nothing(ann: ClientPage, server: ServerProcess) -> None:
    """Each subscribe and unsubscribe aborts the poll and its response."""
    ann.start(transports=["poll"], channel="busy")
    ann.until_entered()
    ann.page.evaluate("window.other = client.subscription('other'), 0")
    with Backend(server, channel="busy", pause_s=0.002) as backend:
        for _ in range(20):
            ann.page.evaluate("other.subscribe()")
            ann.until("other.state === 'subscribed'")
            ann.page.evaluate("other.unsubscribe()")
        published = backend.stop()
    ann.until(f"seen.heard.at(-1) === {published[-1]}")
    assert ann.seen("heard") == published
    assert len(ann.seen("entered")) == 1


def test_a_message_above_the_limit_disconnects(ann: ClientPage) -> None:
    """The client is disconnected and reports it, as over WebSocket."""
    ann.start(transports=["poll"])
    ann.until_entered()
    failure = "room.publish('x'.repeat(70_000)).catch(({ uncertain }) => uncertain)"
    assert ann.page.evaluate(failure) is True
    assert ann.seen("states")[-1]["code"] == 1009


def test_commands_carry_the_subscription_token(ann: ClientPage) -> None:
    """Only subscribers may publish, and each request needs the token to subscribe."""
    token = subscription_token(SECRET, "ann", "members:desk", now_unix_s=time.time())
    ann.start(transports=["poll"], user="ann", channel="members:desk", own={"token": token})
    ann.until_entered()
    ann.until("room.publish('said').then(() => true)")
    ann.until("seen.heard.length === 1")
    assert ann.page.evaluate("client.publish('members:other', 1).catch(({ code }) => code)") == 103


def test_a_cache_channel_causes_no_repeated_polls(ann: ClientPage, server: ServerProcess) -> None:
    """A poll waits while the channel is empty; then the client receives the latest publication."""
    requests: list[str] = []
    ann.page.on("request", lambda request: requests.append(request.url))
    ann.start(transports=["poll"], channel="latest:price")
    ann.until_entered()
    ann.page.wait_for_timeout(200)
    count = len(requests)
    ann.page.wait_for_timeout(500)
    assert len(requests) == count
    for price in (1, 2):
        call(server, "publish", channel="latest:price", data=price)
        ann.until(f"seen.heard.at(-1) === {price}")
    assert [change["state"] for change in ann.seen("room")] == ["subscribing", "subscribed"]


def test_each_poll_requests_recovery(ann: ClientPage, server: ServerProcess) -> None:
    """Where recovery is allowed but not forced, publications between two polls are recovered."""
    held: list[Route] = []
    ann.start(transports=["poll"], channel="onrequest:orders")
    ann.until_entered()
    ann.page.route(POLL, lambda route: held.append(route))
    call(server, "publish", channel="onrequest:orders", data=1)
    until(ann, lambda: len(held) == 1)
    call(server, "publish", channel="onrequest:orders", data=2)
    held[0].continue_()
    ann.until("seen.heard.length === 2")
    assert ann.seen("heard") == [1, 2]
    assert [change["state"] for change in ann.seen("room")] == ["subscribing", "subscribed"]
