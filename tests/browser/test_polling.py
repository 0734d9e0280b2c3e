"""The browser client over polls, in moments that a real server brings about rarely: as if it were one connection."""

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
    """A server that is polled and says what a test wants it to. A poll waits until `answer`, but for the first one."""

    def __init__(self, page: Page) -> None:
        self.granted: Message = {}
        """Results of channels that the first answer tells of, and all later ones if they have none of their own."""
        self.position = {"recover": True, "offset": 0, "epoch": "e"}
        self.reply: Callable[[str, Message], Message] = _agree
        self.asked: list[Message] = []
        self.spoken: list[Message] = []
        self._waiting: list[Route] = []
        page.route(POLL, self._poll)
        page.route(COMMANDS, self._speak)

    @property
    def subs(self) -> Message:
        """What the newest poll asks for."""
        subs: Message = self.asked[-1].get("subs", {})
        return subs

    def answer(self, results: Message, *pushes: Message, subs: Message | None = None) -> None:
        connect = {"client": f"c{len(self.asked)}", "version": "scripted", "ping": 25, "subs": results}
        where = dict.fromkeys(results, self.position) if subs is None else subs
        body = json.dumps({"messages": [{"connect": connect}, *pushes], "subs": where})
        self._waiting.pop().fulfill(body=body, content_type="application/json")

    def _poll(self, route: Route) -> None:
        self.asked.append(json.loads(route.request.post_data or ""))
        self._waiting = [route]
        if self.asked[-1]["wait"] == 0:
            self.answer(self.granted)

    def _speak(self, route: Route) -> None:
        request = json.loads(route.request.post_data or "")
        self.spoken.append(request)
        commands = [next(iter(command.items())) for command in request["commands"]]
        replies = [{"id": number, **self.reply(*command)} for number, command in enumerate(commands, 2)]
        route.fulfill(body=json.dumps({"replies": replies}), content_type="application/json")


def _agree(kind: str, request: Message) -> Message:
    """Whoever subscribes is at the beginning, or where it was."""
    if kind != "subscribe":
        return {kind: {}}
    place = {"offset": request.get("offset", 0), "epoch": request.get("epoch", "e")}
    return {kind: {"recoverable": True, "positioned": True, "recovered": "recover" in request, **place}}


def pub(channel: str, offset: int) -> Message:
    return {"channel": channel, "pub": {"data": offset, "offset": offset}}


def start(ann: ClientPage, polls: Polls, **options: Any) -> None:
    """Connected, in the room, and waiting for news of it."""
    ann.start(transports=["poll"], retryMaxMs=50, **options)
    ann.until_entered()
    until(ann, lambda: ROOM in polls.subs)


def until(ann: ClientPage, happened: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end_s, ann.seen("states")
        ann.page.wait_for_timeout(10)


def test_missed_before_live_and_positions_with_the_next(ann: ClientPage) -> None:
    """Publications of the connect result are told first; the next request is where the last answer was."""
    polls = Polls(ann.page)
    start(ann, polls)
    assert polls.asked[-1]["wait"] == 25
    missed = {"recoverable": True, "recovered": True, "publications": [{"data": n, "offset": n} for n in (1, 2)]}
    where = {ROOM: {"recover": True, "offset": 3, "epoch": "e"}}
    polls.answer({ROOM: missed}, pub(ROOM, 3), subs=where)
    ann.until("seen.heard.length === 3")
    until(ann, lambda: polls.subs == where)
    assert ann.seen("heard") == [1, 2, 3]
    assert ann.page.evaluate("room.position.offset") == 3


def test_what_was_called_off_is_asked_for_again(ann: ClientPage) -> None:
    """Entering another channel ends the poll: whatever its answer was, the next one asks from the same position."""
    polls = Polls(ann.page)
    start(ann, polls)
    ann.page.evaluate("client.subscription('other').subscribe()")
    until(ann, lambda: "other" in polls.subs)
    assert polls.subs == {ROOM: polls.position, "other": polls.position}
    assert polls.spoken[-1]["subs"] == {ROOM: {}}, "the limit of channels can't be told without the others"
    count = len(polls.spoken)
    ann.page.evaluate("client.subscription('other').unsubscribe()")
    until(ann, lambda: "other" not in polls.subs)
    assert len(polls.spoken) == count, "leaving a channel takes no request"
    polls.answer({ROOM: {"recoverable": True, "recovered": True}}, pub("other", 1), pub(ROOM, 1))
    ann.until("seen.heard.length === 1")
    assert ann.page.evaluate("client.subscription('other').position") is None


def test_a_gap_between_two_polls_is_told(ann: ClientPage) -> None:
    """The subscription begins anew at its own position, and the honest answer to that is what the page hears."""
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


def test_a_gap_in_a_channel_of_the_servers_ends_the_connection(ann: ClientPage) -> None:
    """As over any transport: the next connect asks with the position, and tells."""
    polls = Polls(ann.page)
    polls.granted = {"news": {"recoverable": True, "epoch": "e"}}
    start(ann, polls)
    room = {ROOM: {"recoverable": True, "recovered": True}}
    polls.granted = {"news": {"recoverable": True, "was_recovering": True, "offset": 7, "epoch": "e"}}
    polls.answer({**room, **polls.granted}, pub(ROOM, 1))
    ann.until_entered(2)
    assert [change["code"] for change in ann.seen("states") if change["previous"] == "connected"] == [3010]
    assert [event["recovered"] for event in ann.seen("granted")] == [False, False]
    assert polls.asked[-2]["subs"] == {"news": {"recover": True, "offset": 0, "epoch": "e"}}
    assert ann.seen("heard") == []


def test_channels_of_the_servers_come_and_go(ann: ClientPage) -> None:
    """With an answer that has more or fewer of them, or by a push; each is told."""
    polls = Polls(ann.page)
    polls.granted = {"news": {}}
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


def test_a_channel_that_is_not_granted_any_more(ann: ClientPage) -> None:
    """Its token has ended, or a rule has changed: it is asked for with another token, and that tells."""
    polls = Polls(ann.page)
    ann.page.expose_function("mint", lambda channel: f"token{len(polls.spoken)}")
    start(ann, polls, own={"mint": True})
    assert polls.subs[ROOM]["token"] == "token0"
    polls.reply = lambda kind, request: {"error": {"code": 103, "message": "permission denied"}}
    polls.answer({}, pub(ROOM, 1))
    ann.until("room.state === 'unsubscribed'")
    assert [change["code"] for change in ann.seen("room")] == [0, 0, 2501, 103]
    assert polls.spoken[-1]["commands"][0]["subscribe"]["token"] == "token1"
    assert ann.seen("heard") == []


def test_answers_without_news_are_pings(ann: ClientPage) -> None:
    """As long as they come the connection lives; once one does not, it is over."""
    polls = Polls(ann.page)
    ann.page.clock.install()
    start(ann, polls)
    for _ in range(3):
        ann.page.clock.run_for(25_000)
        count = len(polls.asked)
        polls.answer({ROOM: {"recoverable": True, "recovered": True}})
        until(ann, lambda: len(polls.asked) > count)  # noqa: B023  # it is called here
    assert len(ann.seen("states")) == 2
    ann.page.clock.run_for(36_000)
    ann.until("seen.states.length >= 4")
    assert "silent" in ann.seen("states")[2]["reason"]


def test_commands_that_get_no_answer_at_all_end_the_connection(ann: ClientPage) -> None:
    """Others wait behind them, and would for ever: polls go their own way, and tell nothing of this one."""
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
def test_an_answer_that_is_none(ann: ClientPage, path: str, status: int, body: str, code: int) -> None:
    """It ends the connection with the server's code if there is one, and what may be tried again is."""
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


def test_a_flood_of_commands_keeps_its_order(ann: ClientPage, server: ServerProcess) -> None:
    """More than one request may carry, from all sides of what one task says."""
    ann.start(transports=["poll"], channel="flood")
    ann.until_entered()
    ann.page.evaluate("Promise.all([...Array(250).keys()].map((number) => room.publish(number)))")
    ann.until("seen.heard.length === 250")
    assert ann.seen("heard") == list(range(250))


def test_coming_and_going_elsewhere_loses_nothing(ann: ClientPage, server: ServerProcess) -> None:
    """Each calls the poll off, with whatever was on its way to us."""
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


def test_a_message_above_the_servers_limit(ann: ClientPage) -> None:
    """It is the end, and told, as over a WebSocket."""
    ann.start(transports=["poll"])
    ann.until_entered()
    failure = "room.publish('x'.repeat(70_000)).catch(({ uncertain }) => uncertain)"
    assert ann.page.evaluate(failure) is True
    assert ann.seen("states")[-1]["code"] == 1009


def test_a_private_channel_is_spoken_in_with_its_token(ann: ClientPage) -> None:
    """Only who is in it may publish, and only the token lets anyone in, in each request."""
    token = subscription_token(SECRET, "ann", "members:desk", now_unix_s=time.time())
    ann.start(transports=["poll"], user="ann", channel="members:desk", own={"token": token})
    ann.until_entered()
    ann.until("room.publish('said').then(() => true)")
    ann.until("seen.heard.length === 1")
    assert ann.page.evaluate("client.publish('members:other', 1).catch(({ code }) => code)") == 103


def test_a_channel_that_keeps_the_latest_only(ann: ClientPage, server: ServerProcess) -> None:
    """While it has nothing there is nothing to be told again and again; then the latest counts."""
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


def test_recovery_on_request_is_asked_for_by_each_poll(ann: ClientPage, server: ServerProcess) -> None:
    """Where rules allow it but do not insist, what comes between two polls comes all the same."""
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
