"""Unidirectional clients on WebSocket, Server-Sent Events and HTTP streaming, without an SDK."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.acceptance.deadlines import DEADLINE_S
from tests.acceptance.server_process import ServerProcess
from tests.conformance.transports.test_scenario import call, room, token  # noqa: F401  # a fixture

UNIDIRECTIONAL_KINDS = ("uni_http_stream", "uni_sse")


class UnidirectionalClient:
    """Reads the messages of a response. `last_id` is the id of the last event."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id = ""
        self._lines = response.iter_lines()

    def next(self) -> dict[str, Any]:
        """The next message except pings."""
        for line in self._lines:
            if line.startswith("id: "):
                self.last_id = line[4:]
            elif line not in ("", ":") and (message := json.loads(line.removeprefix("data: "))):
                return dict(message)
        raise EOFError

    def data(self, count: int) -> list[Any]:
        """The data of the next `count` publications."""
        found: list[Any] = []
        while len(found) < count:
            message = self.next()
            if "pub" in message:
                found.append(message["pub"]["data"])
        return found

    def read_id(self) -> None:
        """Reads to the id of the current write, which its last event has."""
        while not (line := next(self._lines)).startswith("id: "):
            pass
        self.last_id = line[4:]


@contextmanager
def unidirectional_client(
    server: ServerProcess, kind: str, request: dict[str, Any], last_id: str = ""
) -> Iterator[UnidirectionalClient]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    body = json.dumps(request)
    url = f"{server.http}/connection/{kind}"
    verb, how = ("GET", {"params": {"cf_connect": body}}) if kind == "uni_sse" else ("POST", {"content": body})
    with httpx.stream(verb, url, headers=headers, timeout=20, **how) as response:
        assert response.status_code == 200, response.read()
        yield UnidirectionalClient(response)


@pytest.mark.parametrize("kind", UNIDIRECTIONAL_KINDS)
def test_messages_are_pushes_without_an_envelope(server: ServerProcess, room: str, kind: str) -> None:  # noqa: F811
    """First the connect push, then publications, and pings in between."""
    with unidirectional_client(server, kind, {"token": token("ann"), "subs": {room: {}}}) as client:
        connected = client.next()["connect"]
        assert connected["client"]
        assert connected["ping"] == 1
        assert "pong" not in connected
        assert list(connected["subs"]) == [room]
        call(server, "publish", channel=room, data={"n": 1})
        while "pub" not in (message := client.next()):
            assert "join" in message
        epoch = connected["subs"][room]["epoch"]
        assert message == {"channel": room, "pub": {"data": {"n": 1}, "offset": 1, "epoch": epoch}}


@pytest.mark.parametrize("kind", UNIDIRECTIONAL_KINDS)
def test_null_counts_as_missing(server: ServerProcess, kind: str) -> None:
    """In every field, also for a channel whose name is the name of a field."""
    subs = {"data": {"token": None, "epoch": None, "tf": None}, "news": None}
    with unidirectional_client(
        server, kind, {"token": token("ann"), "data": None, "headers": None, "subs": subs}
    ) as client:
        assert list(client.next()["connect"]["subs"]) == ["data"]


@pytest.mark.parametrize("kind", UNIDIRECTIONAL_KINDS)
def test_client_can_request_conflation(server: ServerProcess, room: str, kind: str) -> None:  # noqa: F811
    """Publications are sent at the maximum rate, with a count of the omitted ones."""
    with unidirectional_client(
        server, kind, {"token": token("ann"), "subs": {room: {"conflate": {"max_rate": 2}}}}
    ) as client:
        client.next()
        for number in range(5):
            call(server, "publish", channel=room, data=number)
        pubs: list[dict[str, Any]] = []
        while not pubs or pubs[-1]["data"] != 4:
            message = client.next()
            if "pub" in message:
                pubs.append(message["pub"])
        assert pubs[0]["data"] == 0
        assert len(pubs) < 5
        assert sum(1 + pub.get("conflated", 0) for pub in pubs) == 5


@pytest.mark.parametrize("kind", UNIDIRECTIONAL_KINDS)
def test_client_need_not_answer_pings(server: ServerProcess, kind: str) -> None:
    """The client stays connected after the pong timeout."""
    with unidirectional_client(server, kind, {"token": token("ann")}) as client:
        client.next()
        started_s = time.monotonic()
        pings = sum(1 for line in _until(client, started_s + 2.5) if line.removeprefix("data: ") == "{}")
        assert pings >= 2


def _until(client: UnidirectionalClient, deadline_s: float) -> Iterator[str]:
    for line in client._lines:
        yield line
        if time.monotonic() > deadline_s:
            return


@pytest.mark.parametrize(
    "last_id",
    ["5", '"5"', "[1]", '{"a":1}', '{"news":[-1,"x"]}', '{"news":[18446744073709551616,"x"]}', '{"news":[1,5]}'],
)
def test_event_id_of_another_server_is_ignored(server: ServerProcess, room: str, last_id: str) -> None:  # noqa: F811
    """An `EventSource` sends it if its address led to another server before. The client connects as without an id."""
    request = {"token": token("ann"), "subs": {room: {}}}
    with unidirectional_client(server, "uni_sse", request, last_id.replace("news", room)) as client:
        subs = client.next()["connect"]["subs"]
        assert list(subs) == [room]
        assert "was_recovering" not in subs[room]


@pytest.mark.parametrize("kind", UNIDIRECTIONAL_KINDS)
@pytest.mark.parametrize(("given", "status"), [("nonsense", 401), ("", 400)])
def test_final_errors_are_sent_as_an_http_status(server: ServerProcess, kind: str, given: str, status: int) -> None:
    """Without an error status an `EventSource` would reconnect for ever."""
    url, request = f"{server.http}/connection/{kind}", json.dumps({"token": given})
    response = httpx.post(url, content=request, timeout=10)
    assert response.status_code == status
    assert response.text.startswith("350")


def test_expired_token_is_reported_in_the_stream(server: ServerProcess) -> None:
    """The client may reconnect with a new token."""
    with unidirectional_client(server, "uni_http_stream", {"token": token("ann", -5)}) as client:
        assert client.next()["disconnect"] == {"code": 3005, "reason": "connection expired", "reconnect": True}
        with pytest.raises(EOFError):
            client.next()


def test_request_without_token_is_anonymous(server: ServerProcess) -> None:
    """A missing connect request means the anonymous user, which this server refuses."""
    response = httpx.get(f"{server.http}/connection/uni_sse", timeout=10)
    assert (response.status_code, response.text) == (400, "3501 bad request\n")


@pytest.mark.parametrize("content", ["[]", '{},"publish":{}', "{", '{"token":1}'])
def test_invalid_connect_request_is_refused(server: ServerProcess, content: str) -> None:
    """It cannot inject other commands either."""
    response = httpx.post(f"{server.http}/connection/uni_http_stream", content=content, timeout=10)
    assert response.status_code == 400


def test_client_recovers_by_the_last_event_id(server: ServerProcess, room: str) -> None:  # noqa: F811
    """With the last id, a client gets exactly the missed publications of every channel, over many reconnects."""
    other = f"{room}b"
    request = {"token": token("ann"), "subs": {room: {}, other: {}}}
    last_id, received, sent = "", [], 0
    for reconnect in range(10):
        for _ in range(reconnect):
            sent += 1
            call(server, "publish", channel=(room, other)[sent % 2], data=sent)
        with unidirectional_client(server, "uni_sse", request, last_id) as client:
            connected = client.next()["connect"]
            if reconnect:
                assert all(sub["recovered"] for sub in connected["subs"].values())
            missed = [pub for sub in connected["subs"].values() for pub in sub.get("publications", [])]
            received += sorted(pub["data"] for pub in missed)
            client.read_id()
            sent += 1
            call(server, "publish", channel=room, data=sent)
            received += client.data(1)
            client.read_id()
            last_id = client.last_id
    assert received == list(range(1, sent + 1))
    assert json.loads(last_id).keys() == {room, other}


def test_malformed_event_id_is_ignored(server: ServerProcess, room: str) -> None:  # noqa: F811
    """No subscription is recovered by it."""
    with unidirectional_client(server, "uni_sse", {"token": token("ann"), "subs": {room: {}}}, "42") as client:
        assert "recovered" not in client.next()["connect"]["subs"][room]


@pytest.mark.parametrize("in_query", [True, False])
def test_websocket_connects_by_first_message_or_query(server: ServerProcess, room: str, in_query: bool) -> None:  # noqa: F811
    """Further messages from the client are ignored."""
    request = json.dumps({"token": token("ann"), "subs": {room: {}}})
    url = f"ws://127.0.0.1:{server.port}{server.prefix}/connection/uni_websocket"
    with connect(f"{url}?{httpx.QueryParams(cf_connect=request)}" if in_query else url) as socket:
        if not in_query:
            socket.send(request)
        assert json.loads(socket.recv())["connect"]["client"]
        socket.send("anything")
        call(server, "publish", channel=room, data=1)
        pushes: list[dict[str, Any]] = []
        while not any("pub" in push for push in pushes):  # the join of this client may come first, in the same message
            pushes += map(json.loads, str(socket.recv(DEADLINE_S)).splitlines())
        assert [push["pub"]["data"] for push in pushes if "pub" in push] == [1]


def test_websocket_with_invalid_token_gets_a_close_code(server: ServerProcess) -> None:
    """The code is 3500."""
    with connect(f"ws://127.0.0.1:{server.port}{server.prefix}/connection/uni_websocket") as socket:
        socket.send('{"token":"nonsense"}')
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3500
