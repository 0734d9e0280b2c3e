"""Long polling: independent requests, which together neither lose nor repeat publications."""

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
from tests.conformance.transports.client_transports import CLIENT_TRANSPORTS
from tests.conformance.transports.scenario_client import connected_client
from tests.conformance.transports.test_scenario import HTTP, call, room, token  # noqa: F401  # a fixture

POLL, COMMANDS = "/connection/poll", "/connection/commands"


def post(server: ServerProcess, path: str = POLL, **request: Any) -> httpx.Response:
    return HTTP.post(f"{server.http}{path}", json=request)


def news(response: dict[str, Any]) -> list[Any]:
    """The data of all publications in a response, in order."""
    found = []
    for message in response["messages"]:
        for sub in message.get("connect", {}).get("subs", {}).values():
            found += [pub["data"] for pub in sub.get("publications", [])]
        if "pub" in message:
            found.append(message["pub"]["data"])
    return found


class Poller:
    """Polls repeatedly, as the documentation describes."""

    def __init__(self, server: ServerProcess, *rooms: str) -> None:
        self._server = server
        self._token = token("poll")
        self.subs: dict[str, Any] = {name: {} for name in rooms}

    def poll(self, wait: float = 10) -> list[Any]:
        response = post(self._server, token=self._token, subs=self.subs, wait=wait)
        assert response.status_code == 200, response.text
        response = response.json()
        self.subs = response["subs"]
        return news(response)


def test_missed_publications_are_returned_at_once(server: ServerProcess, room: str) -> None:  # noqa: F811
    """The first response contains a position. Later responses contain the publications since then, in order, once."""
    poller = Poller(server, room)
    assert poller.poll() == []
    assert poller.subs[room]["recover"] is True
    for number in range(5):
        call(server, "publish", channel=room, data=number)
    assert poller.poll() == [0, 1, 2, 3, 4]
    assert poller.poll(wait=0.2) == []
    call(server, "publish", channel=room, data=5)
    assert poller.poll() == [5]


def test_null_in_a_poll_counts_as_missing(server: ServerProcess) -> None:
    """As in a connect request."""
    entry = {"token": None, "offset": None, "epoch": None}
    request = {"token": token("ann"), "data": None, "name": None, "version": None, "wait": None}
    response = HTTP.post(f"{server.http}/connection/poll", json={**request, "subs": {"data": entry, "news": None}})
    assert response.status_code == 200, response.text
    assert list(response.json()["subs"]) == ["data"]
    refused = HTTP.post(f"{server.http}/connection/poll", json={"token": None, "subs": None, "wait": 0})
    assert refused.json()["disconnect"]["code"] == 3501
    assert "null" not in refused.text


def test_poll_waits_for_a_publication(server: ServerProcess, room: str) -> None:  # noqa: F811
    """The response is sent with the publication, before the wait is over."""
    poller = Poller(server, room)
    poller.poll()
    publishing = threading.Timer(0.5, lambda: call(server, "publish", channel=room, data="now"))
    publishing.start()
    started_s = time.monotonic()
    assert poller.poll(wait=15) == ["now"]
    assert 0.3 < time.monotonic() - started_s < 10
    publishing.join()


def test_no_publication_is_lost_or_repeated(server: ServerProcess, room: str) -> None:  # noqa: F811
    """While publications are made continuously in two channels."""
    rooms = (room, f"{room}b")
    poller = Poller(server, *rooms)
    poller.poll()

    def publish() -> None:
        for number in range(200):
            call(server, "publish", channel=rooms[number % 2], data=number)

    publishing = threading.Thread(target=publish)
    publishing.start()
    received: list[Any] = []
    while len(received) < 200:
        received += poller.poll()
    publishing.join()
    for parity in (0, 1):
        assert [number for number in received if number % 2 == parity] == list(range(parity, 200, 2))


def test_concurrent_polls_are_independent(server: ServerProcess, room: str) -> None:  # noqa: F811
    """Both get the publication."""
    pollers = [Poller(server, room) for _ in range(2)]
    for poller in pollers:
        poller.poll()
    with ThreadPoolExecutor(2) as pool:
        responses = [pool.submit(poller.poll) for poller in pollers]
        time.sleep(0.3)
        call(server, "publish", channel=room, data="both")
        assert [response.result() for response in responses] == [["both"], ["both"]]


def test_channel_with_subscription_token(server: ServerProcess, room: str) -> None:  # noqa: F811
    """Each request needs a valid subscription token; without it the channel is omitted."""
    channel = f"${room}"

    def with_token(expires_in_s: float, **entry: Any) -> dict[str, Any]:
        issued = subscription_token(SECRET, "poll", channel, now_unix_s=time.time(), expires_in_s=expires_in_s)
        return {channel: {"token": issued, **entry}}

    positions = post(server, token=token("poll"), subs=with_token(60), wait=0).json()["subs"]
    call(server, "publish", channel=channel, data="secret")
    assert news(post(server, token=token("poll"), subs=with_token(60, **positions[channel])).json()) == ["secret"]
    for subs in (positions, with_token(-60, **positions[channel])):
        response = post(server, token=token("poll"), subs=subs, wait=0).json()
        assert (news(response), response["subs"]) == ([], {})
    command = {"publish": {"channel": channel, "data": "sent"}}
    for subs, reply in ((with_token(60), "publish"), (positions, "error")):
        [response] = post(server, COMMANDS, token=token("poll"), subs=subs, commands=[command]).json()["replies"]
        assert reply in response
    other_user = post(server, token=token("other"), subs=with_token(60), wait=0)
    assert (other_user.status_code, other_user.json()["disconnect"]["code"]) == (401, 3500)


def test_failed_recovery_is_reported(server: ServerProcess, room: str) -> None:  # noqa: F811
    """If the history is too short, the response is immediate, with `recovered` false and a new position."""
    poller = Poller(server, room)
    poller.poll()
    for number in range(120):  # the history holds 100
        call(server, "publish", channel=room, data=number)
    response = post(server, token=token("poll"), subs=poller.subs).json()
    (sub,) = response["messages"][0]["connect"]["subs"].values()
    assert sub["was_recovering"] is True
    assert "recovered" not in sub
    assert response["subs"][room]["offset"] == 120


def test_commands_run_in_order(server: ServerProcess, room: str) -> None:  # noqa: F811
    """Each has its reply in order, and other subscribers get the publications."""

    async def scenario() -> None:
        async with connected_client(CLIENT_TRANSPORTS["websocket-json"](server), token("ann"), room) as ann:
            commands = [{"publish": {"channel": room, "data": n}} for n in range(3)]
            commands += [{"history": {"channel": room, "limit": 10}}, {"publish": {"channel": "other", "data": 1}}]
            response = post(server, COMMANDS, token=token("bob"), subs={room: {}}, commands=commands)
            *published, history, refused = response.json()["replies"]
            assert all("publish" in reply for reply in published)
            assert [pub["data"] for pub in history["history"]["publications"]] == [0, 1, 2]
            assert refused["error"]["code"] == 103
            assert [data for _, data in await ann.wait_publications(room, 3)] == [0, 1, 2]
            assert not [push for push in ann.pushes if push.get("join", {}).get("info", {}).get("user") == "bob"]

    run_scenario(scenario())


@pytest.mark.parametrize("path", [POLL, COMMANDS])
@pytest.mark.parametrize(
    ("given", "status"), [({"token": "nonsense"}, 401), ({}, 400), ({"token": token("late", -60)}, 401)]
)
def test_invalid_tokens_get_an_error_status(
    server: ServerProcess, path: str, given: dict[str, Any], status: int
) -> None:
    """The body contains the disconnect or error as an SDK would get it."""
    more: dict[str, Any] = {"commands": [{"rpc": {}}]} if path == COMMANDS else {}
    response = post(server, path, **given, **more)
    assert response.status_code == status, response.text
    assert response.json().keys() <= {"disconnect", "error", "id"}


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
def test_invalid_requests_name_the_field(server: ServerProcess, path: str, body: bytes, wrong: str) -> None:
    """The error text contains the invalid field."""
    response = httpx.post(f"{server.http}{path}", content=body, timeout=10)
    assert response.status_code == 400
    assert wrong in response.text


def test_too_many_commands_are_refused(server: ServerProcess) -> None:
    """The whole request is refused, and the limit is counted."""
    response = post(server, COMMANDS, token=token("ann"), commands=[{"rpc": {}}] * 101)
    assert response.status_code == 400
    assert "at most 100 commands" in response.text
    server.wait_log_line("limit_hit", limit="poll_commands_max")


def test_disconnected_poll_ends_its_session(server: ServerProcess, room: str) -> None:  # noqa: F811
    """When the client closes the connection."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.http}{POLL}",
            json={"token": token("gone"), "subs": {room: {"recover": True, "offset": 0, "epoch": ""}}, "wait": 20},
            timeout=0.5,
        )
    server.wait_log_line("session_ended", user="gone")
