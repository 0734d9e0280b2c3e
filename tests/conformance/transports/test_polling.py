"""Long polling: requests that stand alone, and together neither lose nor double anything."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from beaconfire.auth.issue import subscription_token
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.server_process import SECRET, ServerProcess
from tests.conformance.transports.lines import LINES
from tests.conformance.transports.seat import seated
from tests.conformance.transports.test_scenario import HTTP, call, room, token  # noqa: F401  # a fixture

POLL, COMMANDS = "/connection/poll", "/connection/commands"


def ask(server: ServerProcess, path: str = POLL, **request: Any) -> httpx.Response:
    return HTTP.post(f"{server.http}{path}", json=request)


def news(answer: dict[str, Any]) -> list[Any]:
    """The data of all publications of an answer, in order."""
    found = []
    for message in answer["messages"]:
        for sub in message.get("connect", {}).get("subs", {}).values():
            found += [pub["data"] for pub in sub.get("publications", [])]
        if "pub" in message:
            found.append(message["pub"]["data"])
    return found


class Poller:
    """Asks again and again, as the documentation says."""

    def __init__(self, server: ServerProcess, *rooms: str) -> None:
        self._server = server
        self._token = token("poll")
        self.subs: dict[str, Any] = {name: {} for name in rooms}

    def poll(self, wait: float = 10) -> list[Any]:
        response = ask(self._server, token=self._token, subs=self.subs, wait=wait)
        assert response.status_code == 200, response.text
        answer = response.json()
        self.subs = answer["subs"]
        return news(answer)


def test_what_was_missed_is_answered_at_once(server: ServerProcess, room: str) -> None:  # noqa: F811
    """The first answer is a position; later ones hold what came since, in order, each once."""
    poller = Poller(server, room)
    assert poller.poll() == []
    assert poller.subs[room]["recover"] is True
    for number in range(5):
        call(server, "publish", channel=room, data=number)
    assert poller.poll() == [0, 1, 2, 3, 4]
    assert poller.poll(wait=0.2) == []
    call(server, "publish", channel=room, data=5)
    assert poller.poll() == [5]


def test_null_is_what_is_not_set(server: ServerProcess) -> None:
    """As in a connect request, which a poll is."""
    entry = {"token": None, "offset": None, "epoch": None}
    request = {"token": token("ann"), "data": None, "name": None, "version": None, "wait": None}
    answer = HTTP.post(f"{server.http}/connection/poll", json={**request, "subs": {"data": entry, "news": None}})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()["subs"]) == ["data"]
    refused = HTTP.post(f"{server.http}/connection/poll", json={"token": None, "subs": None, "wait": 0})
    assert refused.json()["disconnect"]["code"] == 3501
    assert "null" not in refused.text


def test_an_answer_waits_for_news(server: ServerProcess, room: str) -> None:  # noqa: F811
    """It comes with the publication, long before the time is over."""
    poller = Poller(server, room)
    poller.poll()
    publishing = threading.Timer(0.5, lambda: call(server, "publish", channel=room, data="now"))
    publishing.start()
    started_s = time.monotonic()
    assert poller.poll(wait=15) == ["now"]
    assert 0.3 < time.monotonic() - started_s < 10
    publishing.join()


def test_nothing_is_lost_or_doubled(server: ServerProcess, room: str) -> None:  # noqa: F811
    """While a backend publishes all the time, in two channels."""
    rooms = (room, f"{room}b")
    poller = Poller(server, *rooms)
    poller.poll()

    def publish() -> None:
        for number in range(200):
            call(server, "publish", channel=rooms[number % 2], data=number)

    publishing = threading.Thread(target=publish)
    publishing.start()
    heard: list[Any] = []
    while len(heard) < 200:
        heard += poller.poll()
    publishing.join()
    for parity in (0, 1):
        assert [number for number in heard if number % 2 == parity] == list(range(parity, 200, 2))


def test_two_at_once(server: ServerProcess, room: str) -> None:  # noqa: F811
    """They do not disturb each other: both get what is published."""
    pollers = [Poller(server, room) for _ in range(2)]
    for poller in pollers:
        poller.poll()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(poller.poll) for poller in pollers]
        time.sleep(0.3)
        call(server, "publish", channel=room, data="both")
        assert [answer.result() for answer in answers] == [["both"], ["both"]]


def test_a_channel_that_needs_a_token(server: ServerProcess, room: str) -> None:  # noqa: F811
    """It is heard, and spoken in, with a subscription token in each request; without one that holds it is left out."""
    channel = f"${room}"

    def opened(expires_in_s: float, **entry: Any) -> dict[str, Any]:
        made = subscription_token(SECRET, "poll", channel, now_unix_s=time.time(), expires_in_s=expires_in_s)
        return {channel: {"token": made, **entry}}

    where = ask(server, token=token("poll"), subs=opened(60), wait=0).json()["subs"]
    call(server, "publish", channel=channel, data="secret")
    assert news(ask(server, token=token("poll"), subs=opened(60, **where[channel])).json()) == ["secret"]
    for subs in (where, opened(-60, **where[channel])):
        answer = ask(server, token=token("poll"), subs=subs, wait=0).json()
        assert (news(answer), answer["subs"]) == ([], {})
    said = {"publish": {"channel": channel, "data": "said"}}
    for subs, reply in ((opened(60), "publish"), (where, "error")):
        [answer] = ask(server, COMMANDS, token=token("poll"), subs=subs, commands=[said]).json()["replies"]
        assert reply in answer
    somebody = ask(server, token=token("somebody"), subs=opened(60), wait=0)
    assert (somebody.status_code, somebody.json()["disconnect"]["code"]) == (401, 3500)


def test_what_cannot_be_recovered_is_told(server: ServerProcess, room: str) -> None:  # noqa: F811
    """More than the history holds: recovered is false, at once, and there is a new position."""
    poller = Poller(server, room)
    poller.poll()
    for number in range(120):  # the history holds 100
        call(server, "publish", channel=room, data=number)
    answer = ask(server, token=token("poll"), subs=poller.subs).json()
    (sub,) = answer["messages"][0]["connect"]["subs"].values()
    assert sub["was_recovering"] is True
    assert "recovered" not in sub
    assert answer["subs"][room]["offset"] == 120


def test_speaking(server: ServerProcess, room: str) -> None:  # noqa: F811
    """Commands are done in order, and replied to in order; others hear what was said."""

    async def scenario() -> None:
        async with seated(LINES["websocket-json"](server.port), token("ann"), room) as ann:
            commands = [{"publish": {"channel": room, "data": n}} for n in range(3)]
            commands += [{"history": {"channel": room, "limit": 10}}, {"publish": {"channel": "other", "data": 1}}]
            answer = ask(server, COMMANDS, token=token("bob"), subs={room: {}}, commands=commands)
            *published, history, refused = answer.json()["replies"]
            assert all("publish" in reply for reply in published)
            assert [pub["data"] for pub in history["history"]["publications"]] == [0, 1, 2]
            assert refused["error"]["code"] == 103
            assert [data for _, data in await ann.wait_heard(room, 3)] == [0, 1, 2]
            assert not [push for push in ann.pushes if push.get("join", {}).get("info", {}).get("user") == "bob"]

    run_scenario(scenario())


@pytest.mark.parametrize("path", [POLL, COMMANDS])
@pytest.mark.parametrize(
    ("given", "status"), [({"token": "nonsense"}, 401), ({}, 400), ({"token": token("late", -60)}, 401)]
)
def test_refused_tokens(server: ServerProcess, path: str, given: dict[str, Any], status: int) -> None:
    """The status says what is wrong with the token, and the body says it as an SDK would hear it."""
    more: dict[str, Any] = {"commands": [{"rpc": {}}]} if path == COMMANDS else {}
    answer = ask(server, path, **given, **more)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() <= {"disconnect", "error", "id"}


@pytest.mark.parametrize(
    ("path", "body", "wrong"),
    [
        (POLL, b"[]", "object"),
        (POLL, b'{"wait":-1}', "wait"),
        (POLL, b'{"channels":{}}', "channels"),
        (COMMANDS, b"{}", "commands"),
        (COMMANDS, b'{"commands":[]}', "commands"),
        (COMMANDS, b'{"commands":[1]}', "commands"),
    ],
)
def test_unreadable_requests(server: ServerProcess, path: str, body: bytes, wrong: str) -> None:
    """The field that is wrong is named."""
    answer = httpx.post(f"{server.http}{path}", content=body, timeout=10)
    assert answer.status_code == 400
    assert wrong in answer.text


def test_too_many_commands(server: ServerProcess) -> None:
    """They are refused as a whole, and counted."""
    answer = ask(server, COMMANDS, token=token("ann"), commands=[{"rpc": {}}] * 101)
    assert answer.status_code == 400
    assert "at most 100 commands" in answer.text
    server.wait_log_line("limit_hit", limit="poll_commands_max")


def test_a_poller_that_vanishes(server: ServerProcess, room: str) -> None:  # noqa: F811
    """Its session ends with its request."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.http}{POLL}",
            json={"token": token("gone"), "subs": {room: {"recover": True, "offset": 0, "epoch": ""}}, "wait": 20},
            timeout=0.5,
        )
    server.wait_log_line("session_ended", user="gone")
