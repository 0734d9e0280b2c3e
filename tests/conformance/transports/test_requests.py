"""HTTP requests that open a stream or send commands: invalid ones get an error response at once."""

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
ALLOWED, FOREIGN = "http://localhost", "http://evil.example"


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.http, timeout=10) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "methods"), [(HTTP_STREAM, "POST, OPTIONS"), (SSE, "GET, POST, OPTIONS"), (EMULATION, "POST, OPTIONS")]
)
def test_preflight_permits_allowed_origins(http: httpx.Client, path: str, methods: str) -> None:
    """A page of an allowed origin may send all headers, with credentials; a foreign origin gets no permission."""
    headers = {"Origin": ALLOWED, "Access-Control-Request-Headers": "content-type, x-own"}
    response = http.options(path, headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == ALLOWED
    assert response.headers["access-control-allow-credentials"] == "true"
    assert response.headers["access-control-allow-headers"] == "content-type, x-own"
    assert response.headers["access-control-allow-methods"] == methods
    assert response.headers["access-control-max-age"] == "300"
    assert response.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in http.options(path, headers={**headers, "Origin": FOREIGN}).headers


@pytest.mark.parametrize("path", [HTTP_STREAM, SSE, EMULATION])
def test_foreign_origin_is_refused(http: httpx.Client, path: str) -> None:
    """As for WebSockets."""
    response = http.post(path, content=CONNECT, headers={"Origin": FOREIGN})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", [HTTP_STREAM, SSE, EMULATION, *OTHERS])
@pytest.mark.parametrize("origins", [(ALLOWED, FOREIGN), (FOREIGN, ALLOWED), (ALLOWED, ALLOWED)])
def test_two_origin_headers_are_refused(http: httpx.Client, path: str, origins: tuple[str, str]) -> None:
    """In any order, as for WebSockets: no browser sends two (RFC 6454 section 7.3)."""
    headers = [("Origin", origin) for origin in origins]
    response = http.post(path, content=CONNECT, headers=headers)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    assert "access-control-allow-origin" not in http.options(path, headers=headers).headers


@pytest.mark.parametrize(("method", "path"), [("GET", HTTP_STREAM), ("PUT", SSE), ("GET", EMULATION)])
def test_other_methods_are_refused(http: httpx.Client, method: str, path: str) -> None:
    """The Allow header lists the permitted methods."""
    response = http.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"].endswith("OPTIONS")


@pytest.mark.parametrize(("method", "path"), [("POST", HTTP_STREAM), ("GET", SSE), ("POST", SSE)])
def test_request_without_connect_command_is_refused(http: httpx.Client, method: str, path: str) -> None:
    """The error text says what is missing."""
    response = http.request(method, path)
    assert response.status_code == 400
    assert "expected a connect command in" in response.text


@pytest.mark.parametrize("path", [HTTP_STREAM, SSE, EMULATION])
@pytest.mark.parametrize("announced", [True, False])
def test_body_beyond_the_limit_is_refused(http: httpx.Client, path: str, announced: bool) -> None:
    """With 413, with or without Content-Length."""
    body = b"x" * 70_000
    response = http.post(path, content=body if announced else iter([body]))
    assert response.status_code == 413
    assert "max_request_body_size" in response.text


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"nonsense", "application/json"),
        (b'{"session":1,"data":""}', "application/json"),
        (b'{"session":"x"}', "application/json"),
        (b"\xff\xff", "application/octet-stream"),
    ],
)
def test_invalid_emulation_request_is_refused(http: httpx.Client, body: bytes, content_type: str) -> None:
    """The error text shows the expected format."""
    response = http.post(EMULATION, content=body, headers={"Content-Type": content_type})
    assert response.status_code == 400
    assert "expected" in response.text


def test_unknown_session_gets_404(http: httpx.Client) -> None:
    """With an error object, after which an SDK connects again."""
    response = http.post(EMULATION, json={"session": "unknown", "node": "", "data": "{}"}, headers={"Origin": ALLOWED})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == 404
    assert response.headers["access-control-allow-origin"] == ALLOWED


def test_commands_for_an_ended_session_get_404(http: httpx.Client, server: ServerProcess) -> None:
    """So do commands for a session of another node."""
    command = json.dumps({"id": 1, "connect": {"token": token("leaving")}})
    with http.stream("POST", HTTP_STREAM, content=command) as response:
        connected = json.loads(next(response.iter_lines()))["connect"]
        emulation = {"session": connected["session"], "node": connected["node"], "data": "{}"}
        assert http.post(EMULATION, json={**emulation, "node": "other"}).status_code == 404
    server.wait_log_line("session_ended", user="leaving")
    assert http.post(EMULATION, json=emulation).status_code == 404


def test_malformed_commands_end_the_session(http: httpx.Client) -> None:
    """The stream ends with code 3501."""
    with http.stream("POST", HTTP_STREAM, content=b"garbage") as response:
        assert [json.loads(line)["push"]["disconnect"]["code"] for line in response.iter_lines()] == [3501]


def test_stream_is_neither_buffered_nor_cached(http: httpx.Client) -> None:
    """The headers of the response forbid buffering in proxies, and caching."""
    with http.stream("GET", SSE, params={"cf_connect": "garbage"}) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-accel-buffering"] == "no"
        assert "no-store" in response.headers["cache-control"]
        body = response.read()
        assert body.startswith(b":\n\ndata: {")
        assert b"\r" not in body


def test_reset_connection_ends_the_session(server: ServerProcess) -> None:
    """At once, with code 3000."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        command = json.dumps({"id": 1, "connect": {"token": token("vanishing")}}).encode()
        head = (
            f"POST {server.prefix}{HTTP_STREAM} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(command)}\r\n\r\n".encode()
        )
        connection.sendall(head + command)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert server.wait_log_line("session_ended", user="vanishing")["code"] == 3000


def test_stream_starts_on_a_used_connection(http: httpx.Client) -> None:
    """Other requests may precede it on the same connection."""
    assert http.get("/health").status_code == 200
    with http.stream("POST", HTTP_STREAM, content=CONNECT) as response:
        assert response.status_code == 200
        assert json.loads(next(response.iter_lines()))["push"]["disconnect"]["code"] == 3501
