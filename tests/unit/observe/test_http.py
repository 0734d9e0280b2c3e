"""Which parts of a request are counted and logged, and which are not."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from beaconfire.base.clock import ManualClock
from beaconfire.observe.http import RequestObserver, RequestRecorder
from beaconfire.observe.logs import configure
from beaconfire.observe.metrics import MetricsSink
from beaconfire.observe.options import LogOptions
from tests.unit.observe.test_metrics import samples

TEMPLATES = ["/health", "/metrics", "/api/publish", "/users/{user}/posts", "/static/{file:path}"]

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Observed:
    """An application behind the middleware, with the recorded metrics and log lines."""

    def __init__(self, app: App | None = None) -> None:
        self.clock = ManualClock()
        self.log = io.StringIO()
        configure(LogOptions(format="json", level="debug"), self.log)
        self.metrics = MetricsSink()
        self.recorder = RequestRecorder(self.metrics, TEMPLATES)
        self.sent: list[Message] = []
        self.app = RequestObserver(app or self.answer, self.recorder, self.clock)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.clock.advance(0.125)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def get(self, path: str, method: str = "GET", query: bytes = b"", **scope: Any) -> None:
        request = {"type": "http", "method": method, "path": path, "query_string": query, **scope}
        await self.app(request, self.receive, self.send)

    async def receive(self) -> Message:
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def requests(self) -> dict[str, float]:
        return {name: value for name, value in samples(self.metrics).items() if name.startswith("http_requests_total")}

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def test_request_is_counted_timed_and_logged() -> None:
    """One request: one count, one duration, and a line with method, route, status, duration and address."""
    watched = Observed()
    asyncio.run(watched.get("/api/publish", "POST", client=("203.0.113.7", 1234)))
    found = samples(watched.metrics)
    assert watched.requests() == {"http_requests_total{method=POST,path=/api/publish,status=200}": 1}
    assert found["request_duration_seconds_sum{method=POST,path=/api/publish}"] == 0.125
    line = watched.lines()[0]
    del line["timestamp"]
    assert line == {
        "level": "info",
        "action": "http_request",
        "status": "ok",
        "duration_ms": 125.0,
        "method": "POST",
        "path": "/api/publish",
        "code": 200,
        "address": "203.0.113.7",
    }


def test_query_headers_and_raw_path_are_not_logged() -> None:
    """Queries, headers and paths may contain secrets."""
    watched = Observed()
    headers = [(b"authorization", b"apikey live-key-1")]
    asyncio.run(watched.get("/api/publish", query=b"api_key=live-key-2", headers=headers))
    asyncio.run(watched.get("/live-key-3", raw_path=b"/live-key-3"))
    assert "live-key" not in watched.log.getvalue()
    assert "live-key" not in watched.metrics.exposition().decode()
    assert [line["path"] for line in watched.lines()] == ["/api/publish", "other"]


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/api/publish", "/api/publish"),
        ("/api/publish/", "other"),
        ("/api/unknown", "other"),
        ("/API/PUBLISH", "other"),
        ("", "other"),
        ("/users/42/posts", "/users/{user}/posts"),
        ("/users/4/2/posts", "other"),
        ("/users//posts", "other"),
        ("/static/js/app.js", "/static/{file:path}"),
        ("/static", "other"),
    ],
)
def test_paths_become_templates(path: str, template: str) -> None:
    """Exact paths, one segment for a parameter, any number for a path parameter, and `other` for all other paths."""
    assert RequestRecorder(MetricsSink(), TEMPLATES).template(path) == template


def test_characters_of_a_template_are_taken_literally() -> None:
    """A dot in a template matches only a dot."""
    recorder = RequestRecorder(MetricsSink(), ["/a.b/{name}.json"])
    assert recorder.template("/a.b/x.json") == "/a.b/{name}.json"
    assert recorder.template("/aXb/x.json") == "other"
    assert recorder.template("/a.b/xjson") == "other"


def test_series_of_paths_and_methods_are_bounded() -> None:
    """Requests with many different paths make one series, and so do requests with invented methods."""
    watched = Observed()

    async def scan() -> None:
        for number in range(500):
            await watched.get(f"/wp-admin/{number}", f"M{number}")

    asyncio.run(scan())
    assert watched.requests() == {"http_requests_total{method=other,path=other,status=200}": 500}


def test_exception_is_recorded_as_500_and_raised_again() -> None:
    """The server needs the exception, too: it closes the connection and logs the traceback."""

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("boom")

    watched = Observed(fail)
    with pytest.raises(RuntimeError, match="boom"):
        asyncio.run(watched.get("/health"))
    assert watched.requests() == {"http_requests_total{method=GET,path=/health,status=500}": 1}
    assert [(line["level"], line["status"], line["code"]) for line in watched.lines()] == [("warning", "error", 500)]


def test_exception_after_the_response_began_is_recorded_as_500() -> None:
    """The client got status 200 and then a broken stream: the server failed."""

    async def fail_late(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("boom")

    watched = Observed(fail_late)
    with pytest.raises(RuntimeError):
        asyncio.run(watched.get("/health"))
    assert watched.requests() == {"http_requests_total{method=GET,path=/health,status=500}": 1}


def test_a_missing_response_is_recorded_as_500() -> None:
    """An application that returns without a response has failed, even without an exception."""

    async def forget(scope: Scope, receive: Receive, send: Send) -> None:
        return

    watched = Observed(forget)
    asyncio.run(watched.get("/health"))
    assert watched.requests() == {"http_requests_total{method=GET,path=/health,status=500}": 1}


def test_a_missing_response_after_a_disconnect_is_recorded_as_499() -> None:
    """The client closed the connection, for example because it cancelled a poll: nothing failed."""

    async def notice(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.disconnect"

    watched = Observed(notice)
    asyncio.run(watched.get("/health"))
    assert watched.requests() == {"http_requests_total{method=GET,path=/health,status=499}": 1}
    assert watched.lines()[-1]["level"] == "info"


@pytest.mark.parametrize(("answered", "status"), [(False, 499), (True, 200)])
def test_cancelled_request_is_recorded(answered: bool, status: int) -> None:
    """A cancelled request has the status of its response, or 499 without one, and raises CancelledError."""
    reached = asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        if answered:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        reached.set()
        await asyncio.Event().wait()

    watched = Observed(wait)

    async def cancel() -> None:
        task = asyncio.ensure_future(watched.get("/health"))
        await asyncio.wait_for(reached.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert watched.requests() == {f"http_requests_total{{method=GET,path=/health,status={status}}}": 1}


def test_stream_is_not_buffered_and_timed_to_its_end() -> None:
    """Each message is passed on immediately as the same object, and the duration is the lifetime of the stream."""
    pieces: list[Message] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        *({"type": "http.response.body", "body": b"%d" % number, "more_body": number < 2} for number in range(3)),
    ]
    seen: list[int] = []

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        for piece in pieces:
            watched.clock.advance(1)
            await send(piece)
            seen.append(len(watched.sent))
            assert watched.requests() == {}

    watched = Observed(stream)
    asyncio.run(watched.get("/health"))
    assert seen == [1, 2, 3, 4]
    assert all(sent is piece for sent, piece in zip(watched.sent, pieces, strict=True))
    assert samples(watched.metrics)["request_duration_seconds_sum{method=GET,path=/health}"] == 4


def test_other_scopes_are_not_recorded() -> None:
    """Lifespan and WebSocket are not HTTP requests."""
    scopes: list[Scope] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        assert send == watched.send

    watched = Observed(note)
    for kind in ("lifespan", "websocket"):
        asyncio.run(watched.app({"type": kind}, watched.receive, watched.send))
    assert scopes == [{"type": "lifespan"}, {"type": "websocket"}]
    assert watched.requests() == {}
    assert watched.lines() == []


def test_levels_of_request_lines() -> None:
    """Successful probes and scrapes are debug; refused requests are info with status error; 5xx are warnings."""
    watched = Observed()
    for path, status in (("/health", 200), ("/health", 404), ("/api/publish", 302), ("/api/publish", 401), ("/x", 503)):
        watched.recorder.record("GET", path, status, 0.001)
    assert [(line["path"], line["code"], line["level"], line["status"]) for line in watched.lines()] == [
        ("/health", 200, "debug", "ok"),
        ("/health", 404, "info", "error"),
        ("/api/publish", 302, "info", "ok"),
        ("/api/publish", 401, "info", "error"),
        ("other", 503, "warning", "error"),
    ]
