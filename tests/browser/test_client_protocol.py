"""The browser client with a scripted server: messages that a real server sends rarely or at unusual times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import CONFIG, ClientPage, call
from tests.browser.scripted import CONNECTED, Message, Scripted, publication

ROOM = "campfire"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves the client's modules. The client connects to a scripted server, except in one test."""
    folder: Path = tmp_path_factory.mktemp("server")
    with ServerProcess(folder, CONFIG) as process:
        yield process


def subscribed(offset: int = 0, epoch: str = "e", **fields: object) -> Message:
    return {"subscribe": {"recoverable": True, "positioned": True, "epoch": epoch, "offset": offset, **fields}}


def recovered(request: Message, *offsets: int) -> Message:
    publications = [{"data": offset, "offset": offset} for offset in offsets]
    return subscribed(request["offset"], recovered=True, was_recovering=True, publications=publications)


def test_publications_in_the_frame_of_the_reply_are_delivered(ann: ClientPage) -> None:
    """The subscription is live from its reply on, not from a later turn of the event loop."""
    script = Scripted(ann.page)

    def subscribe(request: Message) -> Message:
        script.then = [publication(ROOM, 1), publication(ROOM, 2)]
        return subscribed()

    script.answers["subscribe"] = subscribe
    ann.start()
    ann.until("seen.heard.length === 2")
    assert ann.seen("heard") == [1, 2]


def test_a_subscription_ended_with_2500_recovers(ann: ClientPage) -> None:
    """It subscribes again with its position on the same connection, and delivers each publication once."""
    script = Scripted(ann.page)
    script.answers["subscribe"] = lambda request: recovered(request, 2, 3, 4) if "recover" in request else subscribed()
    ann.start(retryFirstMs=1)
    ann.until_entered()
    script.push(publication(ROOM, 1), publication(ROOM, 2), publication(ROOM, 1))
    script.push({"push": {"channel": ROOM, "unsubscribe": {"code": 2500, "reason": "insufficient state"}}})
    script.push(publication(ROOM, 3))
    ann.until_entered(2)
    script.push(publication(ROOM, 4), publication(ROOM, 5))
    ann.until("seen.heard.at(-1) === 5")
    assert ann.seen("heard") == [1, 2, 3, 4, 5]
    first, second = script.requests("subscribe")
    assert "recover" not in first
    assert (second["recover"], second["offset"], second["epoch"]) == (True, 2, "e")
    assert [change["code"] for change in ann.seen("room") if change["previous"] == "subscribed"] == [2500]
    assert len(script.sockets) == 1


def test_offsets_of_another_epoch_are_new(ann: ClientPage) -> None:
    """Offsets of a new stream start below those of the old one, and are delivered."""
    script = Scripted(ann.page)
    replies = iter([subscribed(7, "old"), subscribed(0, "new", was_recovering=True)])
    script.answers["subscribe"] = lambda request: next(replies)
    ann.start(retryFirstMs=1)
    ann.until_entered()
    script.push(publication(ROOM, 8))
    ann.until("seen.heard.length === 1")
    script.sockets[-1].close(code=3001)
    ann.until_entered(2)
    script.push(publication(ROOM, 1))
    ann.until("seen.heard.length === 2")
    assert ann.seen("heard") == [8, 1]
    assert [(event["wasRecovering"], event["recovered"]) for event in ann.seen("entered")] == [
        (False, False),
        (True, False),
    ]


def test_an_invalidated_state_is_not_recovered(ann: ClientPage) -> None:
    """After 3014 the client sends an epoch that no stream has, so that recovery fails."""
    script = Scripted(ann.page)
    script.answers["subscribe"] = lambda request: subscribed(5)
    ann.start(retryFirstMs=1)
    ann.until_entered()
    script.sockets[-1].close(code=3014)
    ann.until_entered(2)
    request = script.requests("subscribe")[-1]
    assert (request["recover"], request["epoch"]) == (True, "_")


def test_only_temporary_errors_are_retried(ann: ClientPage) -> None:
    """This holds for subscriptions and for the connection."""
    script = Scripted(ann.page)
    busy = {"error": {"code": 111, "message": "too many requests", "temporary": True}}
    connects, subscribes = iter([busy, busy, CONNECTED]), iter([busy, busy, subscribed()])
    script.answers["connect"] = lambda request: next(connects)
    script.answers["subscribe"] = lambda request: next(subscribes)
    ann.start(retryFirstMs=1)
    ann.until_entered()
    assert len(script.requests("connect")) == 3
    assert len(script.requests("subscribe")) == 3
    script.answers["connect"] = lambda request: {"error": {"code": 103, "message": "permission denied"}}
    script.sockets[-1].close(code=3001)
    ann.until("client.state === 'disconnected'")
    assert ann.seen("states")[-1]["code"] == 103


def with_ticket(reply: Message, kind: str, ticket: str) -> Message:
    return {kind: {**reply[kind], "ticket": ticket}}


def test_tickets_are_sent_beside_the_tokens(ann: ClientPage) -> None:
    """The newest one of the connection and of the channel. A reply without a ticket leaves the ticket valid."""
    script = Scripted(ann.page)
    connects = iter([with_ticket(CONNECTED, "connect", "c1"), CONNECTED, CONNECTED])
    subscribes = iter([with_ticket(subscribed(), "subscribe", "s1"), subscribed(), subscribed()])
    script.answers["connect"] = lambda request: next(connects)
    script.answers["subscribe"] = lambda request: next(subscribes)
    ann.start(own={"token": "channel"}, token="connection", retryFirstMs=1)
    for times in (1, 2):
        ann.until_entered(times)
        script.sockets[-1].close(code=3001)
    ann.until_entered(3)
    sent = [(request["token"], request.get("ticket")) for request in script.requests("connect")]
    assert sent == [("connection", None), ("connection", "c1"), ("connection", "c1")]
    sent = [(request["token"], request.get("ticket")) for request in script.requests("subscribe")]
    assert sent == [("channel", None), ("channel", "s1"), ("channel", "s1")]
    assert all(request["want_tickets"] for request in script.requests("connect"))


@pytest.mark.parametrize("refusal", [109, 110, 3005, 3014])
def test_refused_ticket_is_forgotten(ann: ClientPage, refusal: int) -> None:
    """After an expired token, an expired connection, and the loss of the server's state."""
    script = Scripted(ann.page)
    first = with_ticket(CONNECTED, "connect", "old")
    connects = iter(
        [first, CONNECTED] if refusal > 3000 else [first, {"error": {"code": refusal, "message": ""}}, CONNECTED]
    )
    script.answers["connect"] = lambda request: next(connects)
    script.answers["subscribe"] = lambda request: subscribed()
    minted = iter(["first", "second"])
    ann.page.expose_function("mint", lambda channel: next(minted))
    ann.start(mint=True, retryFirstMs=1)
    ann.until_entered()
    script.sockets[-1].close(code=refusal if refusal > 3000 else 3001)
    ann.until_entered(2)
    last = script.requests("connect")[-1]
    assert (last["token"], "ticket" in last) == ("second", False)


def test_connect_data_can_be_changed(ann: ClientPage) -> None:
    """The new data is sent with the next connect command."""
    script = Scripted(ann.page)
    script.answers["subscribe"] = lambda request: subscribed()
    ann.start(retryFirstMs=1, data={"name": "Ann"})
    ann.until_entered()
    ann.page.evaluate("client.data = { name: 'Bob' }")
    script.sockets[-1].close(code=3001)
    ann.until_entered(2)
    ann.page.evaluate("client.data = undefined")
    script.sockets[-1].close(code=3001)
    ann.until_entered(3)
    assert [request.get("data") for request in script.requests("connect")] == [{"name": "Ann"}, {"name": "Bob"}, None]


def test_missing_pings_cause_a_reconnect(ann: ClientPage) -> None:
    """Each ping gets a pong. After pings have stopped, the client reconnects."""
    script = Scripted(ann.page)
    script.answers["subscribe"] = lambda request: subscribed()
    ann.page.clock.install()
    ann.start()
    ann.until_entered()
    script.push({})
    ann.until("true")
    for _ in range(3):
        ann.page.clock.run_for(20_000)
        script.push({})
        ann.page.wait_for_timeout(50)
    assert len(script.requests("pong")) == 4
    assert len(script.sockets) == 1
    ann.page.clock.run_for(36_000)
    ann.until("seen.states.length >= 4")
    lost = ann.seen("states")[2]
    assert (lost["previous"], lost["state"]) == ("connected", "connecting")
    assert "silent" in lost["reason"]


def test_a_missing_reply_is_uncertain(ann: ClientPage) -> None:
    """After a timeout or a loss the server may have executed the command. An unanswered subscribe reconnects."""
    script = Scripted(ann.page)
    script.answers |= {"publish": lambda request: None, "subscribe": lambda request: subscribed()}
    ann.start(commandTimeoutMs=1000, retryFirstMs=1)
    ann.until_entered()
    verdict = "(error) => [error.code, error.temporary, error.uncertain]"
    assert ann.page.evaluate(f"room.publish(1).catch({verdict})") == [0, True, True]
    ann.page.evaluate(f"(window.lost = room.publish(2).catch({verdict})) && 0")
    ann.until("true")
    script.sockets[-1].close(code=3011)
    assert ann.page.evaluate("lost") == [0, True, True]
    ann.until_entered(2)
    answers = itertools.chain([None], itertools.repeat(subscribed()))
    script.answers["subscribe"] = lambda request: next(answers)
    script.sockets[-1].close(code=3011)
    ann.until_entered(3)
    assert len(script.sockets) >= 4


def test_a_subscription_made_in_a_state_listener_subscribes_once(ann: ClientPage) -> None:
    """A listener creates it when the client is connected, before the client itself subscribes all subscriptions."""
    script = Scripted(ann.page)
    script.answers["subscribe"] = lambda request: subscribed()
    ann.start(retryFirstMs=1)
    ann.until_entered()
    ann.page.evaluate(
        "void client.on('state', ({ state }) => state === 'connected' && client.subscription('other').subscribe())"
    )
    script.sockets[-1].close(code=3011)
    ann.until_entered(2)
    ann.until("client.subscription('other').state === 'subscribed'")
    assert [request["channel"] for request in script.requests("subscribe")] == [ROOM, "other", ROOM]


def test_since_recovers_from_the_given_position(ann: ClientPage, server: ServerProcess) -> None:
    """A page that was rendered with a state receives the later publications, from a real server."""
    position = call(server, "publish", channel="orders", data="in the page")
    for text in ("second", "third"):
        call(server, "publish", channel="orders", data=text)
    ann.start(channel="orders", own={"since": position})
    ann.until("seen.heard.length === 2")
    assert ann.seen("heard") == ["second", "third"]
    assert ann.page.evaluate("room.position.offset") == 3
