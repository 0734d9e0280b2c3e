"""Requests that open a stream or speak in one: what is wrong with them is said at once, and nothing hangs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.server_process import ServerProcess
from tests.conformance.transports.test_scenario import token

HTTP_STREAM, SSE, EMULATION = "/connection/http_stream", "/connection/sse", "/emulation"
OTHERS = ("/connection/uni_http_stream", "/connection/uni_sse", "/connection/poll", "/connection/commands")
CONNECT = json.dumps({"id": 1, "connect": {}})
HOME, FOREIGN = "http://localhost", "http://evil.example"


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http, timeout=10) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "methods"), [(HTTP_STREAM, "POST, OPTIONS"), (SSE, "GET, POST, OPTIONS"), (EMULATION, "POST, OPTIONS")]
)
def test_preflight(http: httpx.Client, path: str, methods: str) -> None:
    """A page of an allowed origin may send what it wants to, with credentials; a foreign one is not told so."""
    asked = {"Origin": HOME, "Access-Control-Request-Headers": "content-type, x-own"}
    answer = http.options(path, headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == HOME
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-headers"] == "content-type, x-own"
    assert answer.headers["access-control-allow-methods"] == methods
    assert answer.headers["access-control-max-age"] == "300"
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in http.options(path, headers={**asked, "Origin": FOREIGN}).headers


@pytest.mark.parametrize("path", [HTTP_STREAM, SSE, EMULATION])
def test_foreign_origin(http: httpx.Client, path: str) -> None:
    """A foreign page gets nothing, as over WebSocket."""
    answer = http.post(path, content=CONNECT, headers={"Origin": FOREIGN})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", [HTTP_STREAM, SSE, EMULATION, *OTHERS])
@pytest.mark.parametrize("origins", [(HOME, FOREIGN), (FOREIGN, HOME), (HOME, HOME)])
def test_two_origins(http: httpx.Client, path: str, origins: tuple[str, str]) -> None:
    """No browser sends two (RFC 6454 section 7.3): refused, whichever comes first, as over WebSocket."""
    headers = [("Origin", origin) for origin in origins]
    answer = http.post(path, content=CONNECT, headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-origin" not in http.options(path, headers=headers).headers


@pytest.mark.parametrize(("method", "path"), [("GET", HTTP_STREAM), ("PUT", SSE), ("GET", EMULATION)])
def test_methods(http: httpx.Client, method: str, path: str) -> None:
    """Other methods are refused with those that there are."""
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"].endswith("OPTIONS")


@pytest.mark.parametrize(("method", "path"), [("POST", HTTP_STREAM), ("GET", SSE), ("POST", SSE)])
def test_nothing_to_begin_with(http: httpx.Client, method: str, path: str) -> None:
    """A request without a command is told what is missing."""
    answer = http.request(method, path)
    assert answer.status_code == 400
    assert "expected a connect command in" in answer.text


@pytest.mark.parametrize("path", [HTTP_STREAM, SSE, EMULATION])
@pytest.mark.parametrize("announced", [True, False])
def test_too_large(http: httpx.Client, path: str, announced: bool) -> None:
    """A body beyond the limit is refused, whether its length is announced or not."""
    body = b"x" * 70_000
    answer = http.post(path, content=body if announced else iter([body]))
    assert answer.status_code == 413
    assert "max_request_body_size" in answer.text


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"nonsense", "application/json"),
        (b'{"session":1,"data":""}', "application/json"),
        (b'{"session":"x"}', "application/json"),
        (b"\xff\xff", "application/octet-stream"),
    ],
)
def test_unreadable_commands(http: httpx.Client, body: bytes, content_type: str) -> None:
    """What is no envelope is refused with what one looks like."""
    answer = http.post(EMULATION, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert "expected" in answer.text


def test_unknown_session(http: httpx.Client) -> None:
    """A session that never was gets a typed error, from which an SDK learns to connect again."""
    answer = http.post(EMULATION, json={"session": "nobody", "node": "", "data": "{}"}, headers={"Origin": HOME})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == 404
    assert answer.headers["access-control-allow-origin"] == HOME


def test_commands_for_a_session_that_has_ended(http: httpx.Client, server: ServerProcess) -> None:
    """They get the same error; so do commands for a session of another node."""
    opening = json.dumps({"id": 1, "connect": {"token": token("leaving")}})
    with http.stream("POST", HTTP_STREAM, content=opening) as response:
        connected = json.loads(next(response.iter_lines()))["connect"]
        spoken = {"session": connected["session"], "node": connected["node"], "data": "{}"}
        assert http.post(EMULATION, json={**spoken, "node": "elsewhere"}).status_code == 404
    server.wait_log_line("session_ended", user="leaving")
    assert http.post(EMULATION, json=spoken).status_code == 404


def test_garbage_ends_the_session(http: httpx.Client) -> None:
    """Commands that are none end the stream with the code that says so."""
    with http.stream("POST", HTTP_STREAM, content=b"garbage") as response:
        assert [json.loads(line)["push"]["disconnect"]["code"] for line in response.iter_lines()] == [3501]


def test_headers_against_buffering(http: httpx.Client) -> None:
    """Proxies are told to pass the stream on as it comes, and caches to keep away."""
    with http.stream("GET", SSE, params={"cf_connect": "garbage"}) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        assert "no-store" in response.headers["cache-control"]
        body = response.read()
        assert body.startswith(b":\n\ndata: {")
        assert b"\r" not in body


def test_a_client_that_vanishes(server: ServerProcess) -> None:
    """One that resets its connection is gone at once; the next request on the server is not disturbed."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        opening = json.dumps({"id": 1, "connect": {"token": token("vanishing")}}).encode()
        head = f"POST {HTTP_STREAM} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(opening)}\r\n\r\n".encode()
        connection.sendall(head + opening)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert server.wait_log_line("session_ended", user="vanishing")["code"] == 3000


def test_a_connection_that_carried_other_requests(http: httpx.Client) -> None:
    """A stream may begin on a connection that is in use already."""
    assert http.get("/health").status_code == 200
    with http.stream("POST", HTTP_STREAM, content=CONNECT) as response:
        assert response.status_code == 200
        assert json.loads(next(response.iter_lines()))["push"]["disconnect"]["code"] == 3501
