"""Clients that only listen: WebSocket, Server-Sent Events and HTTP streaming, with no SDK and no second request."""

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

from tests.acceptance.server_process import ServerProcess
from tests.conformance.transports.test_scenario import call, room, token  # noqa: F401  # a fixture

LISTENING = ("uni_http_stream", "uni_sse")


class Listener:
    """What comes in a response, message by message; `last_id` is the last event's id."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id = ""
        self._lines = response.iter_lines()

    def next(self) -> dict[str, Any]:
        """The next message that is no ping."""
        for line in self._lines:
            if line.startswith("id: "):
                self.last_id = line[4:]
            elif line not in ("", ":") and (message := json.loads(line.removeprefix("data: "))):
                return dict(message)
        raise EOFError

    def data(self, count: int) -> list[Any]:
        """Of so many publications."""
        found: list[Any] = []
        while len(found) < count:
            message = self.next()
            if "pub" in message:
                found.append(message["pub"]["data"])
        return found

    def settle(self) -> None:
        """Reads to the end of the event at hand, where its id is."""
        while line := next(self._lines):
            if line.startswith("id: "):
                self.last_id = line[4:]


@contextmanager
def listening(server: ServerProcess, kind: str, request: dict[str, Any], last_id: str = "") -> Iterator[Listener]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    body = json.dumps(request)
    url = f"{server.http}/connection/{kind}"
    verb, how = ("GET", {"params": {"cf_connect": body}}) if kind == "uni_sse" else ("POST", {"content": body})
    with httpx.stream(verb, url, headers=headers, timeout=20, **how) as response:
        assert response.status_code == 200, response.read()
        yield Listener(response)


@pytest.mark.parametrize("kind", LISTENING)
def test_pushes_as_they_are(server: ServerProcess, room: str, kind: str) -> None:  # noqa: F811
    """First what was connected to, then publications with nothing around them, and pings in between."""
    with listening(server, kind, {"token": token("ann"), "subs": {room: {}}}) as listener:
        connected = listener.next()["connect"]
        assert connected["client"]
        assert connected["ping"] == 1
        assert "pong" not in connected
        assert list(connected["subs"]) == [room]
        call(server, "publish", channel=room, data={"n": 1})
        while "pub" not in (message := listener.next()):
            assert "join" in message
        epoch = connected["subs"][room]["epoch"]
        assert message == {"channel": room, "pub": {"data": {"n": 1}, "offset": 1, "epoch": epoch}}


@pytest.mark.parametrize("kind", LISTENING)
def test_null_is_what_is_not_set(server: ServerProcess, kind: str) -> None:
    """In every field, also in those of a channel that has the name of a field itself."""
    subs = {"data": {"token": None, "epoch": None, "tf": None}, "news": None}
    with listening(server, kind, {"token": token("ann"), "data": None, "headers": None, "subs": subs}) as listener:
        assert list(listener.next()["connect"]["subs"]) == ["data"]


@pytest.mark.parametrize("kind", LISTENING)
def test_dashboards_may_ask_for_the_latest(server: ServerProcess, room: str, kind: str) -> None:  # noqa: F811
    """At most so often, with a count of what was left out."""
    with listening(server, kind, {"token": token("ann"), "subs": {room: {"conflate": {"max_rate": 2}}}}) as listener:
        listener.next()
        for number in range(5):
            call(server, "publish", channel=room, data=number)
        pubs: list[dict[str, Any]] = []
        while not pubs or pubs[-1]["data"] != 4:
            message = listener.next()
            if "pub" in message:
                pubs.append(message["pub"])
        assert pubs[0]["data"] == 0
        assert len(pubs) < 5
        assert sum(1 + pub.get("conflated", 0) for pub in pubs) == 5


@pytest.mark.parametrize("kind", LISTENING)
def test_pings_need_no_answer(server: ServerProcess, kind: str) -> None:
    """A listener stays beyond every ping's deadline."""
    with listening(server, kind, {"token": token("ann")}) as listener:
        listener.next()
        started_s = time.monotonic()
        pings = sum(1 for line in _until(listener, started_s + 2.5) if line.removeprefix("data: ") == "{}")
        assert pings >= 2


def _until(listener: Listener, deadline_s: float) -> Iterator[str]:
    for line in listener._lines:
        yield line
        if time.monotonic() > deadline_s:
            return


@pytest.mark.parametrize(
    "last_id",
    ["5", '"5"', "[1]", '{"a":1}', '{"news":[-1,"x"]}', '{"news":[18446744073709551616,"x"]}', '{"news":[1,5]}'],
)
def test_the_event_id_of_another_server_changes_nothing(server: ServerProcess, room: str, last_id: str) -> None:  # noqa: F811
    """An `EventSource` whose server was another one before sends such: it is let in as if it had none."""
    request = {"token": token("ann"), "subs": {room: {}}}
    with listening(server, "uni_sse", request, last_id.replace("news", room)) as listener:
        subs = listener.next()["connect"]["subs"]
        assert list(subs) == [room]
        assert "was_recovering" not in subs[room]


@pytest.mark.parametrize("kind", LISTENING)
@pytest.mark.parametrize(("given", "status"), [("nonsense", 401), ("", 400)])
def test_refused_with_a_status(server: ServerProcess, kind: str, given: str, status: int) -> None:
    """Whoever may not come back is told by the status, or an EventSource would come back for ever."""
    url, request = f"{server.http}/connection/{kind}", json.dumps({"token": given})
    answer = httpx.post(url, content=request, timeout=10)
    assert answer.status_code == status
    assert answer.text.startswith("350")


def test_expired_tokens_may_be_renewed(server: ServerProcess) -> None:
    """A listener whose token has run out is told so in the stream: with another one it may come back."""
    with listening(server, "uni_http_stream", {"token": token("ann", -5)}) as listener:
        assert listener.next()["disconnect"] == {"code": 3005, "reason": "connection expired", "reconnect": True}
        with pytest.raises(EOFError):
            listener.next()


def test_nothing_is_needed_to_begin_with(server: ServerProcess) -> None:
    """Without a connect request one is the anonymous user, which this server does not take."""
    answer = httpx.get(f"{server.http}/connection/uni_sse", timeout=10)
    assert (answer.status_code, answer.text) == (400, "3501 bad request\n")


@pytest.mark.parametrize("opening", ["[]", '{},"publish":{}', "{", '{"token":1}'])
def test_unreadable_request(server: ServerProcess, opening: str) -> None:
    """What is no connect request is refused, and can't be made to say more."""
    answer = httpx.post(f"{server.http}/connection/uni_http_stream", content=opening, timeout=10)
    assert answer.status_code == 400


def test_events_are_resumed_by_their_id(server: ServerProcess, room: str) -> None:  # noqa: F811
    """Whoever comes back with the last id gets exactly what it missed, in every channel, over many cuts."""
    other = f"{room}b"
    request = {"token": token("ann"), "subs": {room: {}, other: {}}}
    last_id, heard, sent = "", [], 0
    for cut in range(10):
        for _ in range(cut):
            sent += 1
            call(server, "publish", channel=(room, other)[sent % 2], data=sent)
        with listening(server, "uni_sse", request, last_id) as listener:
            connected = listener.next()["connect"]
            if cut:
                assert all(sub["recovered"] for sub in connected["subs"].values())
            missed = [pub for sub in connected["subs"].values() for pub in sub.get("publications", [])]
            heard += sorted(pub["data"] for pub in missed)
            listener.settle()
            sent += 1
            call(server, "publish", channel=room, data=sent)
            heard += listener.data(1)
            listener.settle()
            last_id = listener.last_id
    assert heard == list(range(1, sent + 1))
    assert json.loads(last_id).keys() == {room, other}


def test_a_foreign_id_changes_nothing(server: ServerProcess, room: str) -> None:  # noqa: F811
    """Ids of another server, or no ids at all, are not believed."""
    with listening(server, "uni_sse", {"token": token("ann"), "subs": {room: {}}}, "42") as listener:
        assert "recovered" not in listener.next()["connect"]["subs"][room]


@pytest.mark.parametrize("in_query", [True, False])
def test_websocket(server: ServerProcess, room: str, in_query: bool) -> None:  # noqa: F811
    """The request is the first message, or in the query; what else the client says is ignored."""
    request = json.dumps({"token": token("ann"), "subs": {room: {}}})
    url = f"ws://127.0.0.1:{server.port}/connection/uni_websocket"
    with connect(f"{url}?{httpx.QueryParams(cf_connect=request)}" if in_query else url) as socket:
        if not in_query:
            socket.send(request)
        assert json.loads(socket.recv())["connect"]["client"]
        socket.send("anything")
        call(server, "publish", channel=room, data=1)
        pushes = [json.loads(line) for line in (str(socket.recv()) + "\n" + str(socket.recv())).splitlines()]
        assert [push["pub"]["data"] for push in pushes if "pub" in push] == [1]


def test_websocket_with_a_bad_token(server: ServerProcess) -> None:
    """There are close codes here."""
    with connect(f"ws://127.0.0.1:{server.port}/connection/uni_websocket") as socket:
        socket.send('{"token":"nonsense"}')
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 3500
