"""Requests for WebSockets under an ASGI server: checks, refusals, and what is accepted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import SHUTDOWN
from beaconfire.base.timers import Timers
from beaconfire.model.events import HandshakeRefused, InternalError
from beaconfire.model.handshake import Handshake
from beaconfire.transports.asgi.endpoint import WebSocketChecks, WebSocketEndpoint
from beaconfire.transports.options import WebSocketOptions
from beaconfire.transports.port import ErrorResponse, Transport
from beaconfire.transports.websocket_endpoints import NegotiatedHandshake
from beaconfire.transports.websocket_request import WebSocketRequest
from tests.fakes.events import EventRecorder

from .server import RecordingSession


class ClosingEndpoint:
    """Accepts requests with one subprotocol; the session closes the connection at once. Keeps the handshakes."""

    def __init__(self) -> None:
        self.handshakes: list[Handshake] = []

    def negotiate(self, request: WebSocketRequest) -> NegotiatedHandshake | ErrorResponse:
        if request.parameter("bug"):
            raise RuntimeError("a bug")
        if request.parameter("bad"):
            return ErrorResponse(400, "bad", "bad request", (("Retry-After", "5"),))
        return NegotiatedHandshake(self.open_session, next(iter(request.subprotocols), ""))

    def open_session(self, transport: Transport, handshake: Handshake) -> RecordingSession:
        self.handshakes.append(handshake)
        transport.close(SHUTDOWN, "bye")
        return RecordingSession()


class Request:
    """One request, its response, and what was reported."""

    def __init__(
        self, query: str = "", admitted: ErrorResponse | None = None, denial: bool = True, first: str = "connect"
    ) -> None:
        self.query = query
        self.admitted = admitted
        self.extensions: dict[str, Any] | None = {"websocket.http.response": {}} if denial else None
        self.first = first
        self.events = EventRecorder(expects_errors=True)
        self.endpoint = ClosingEndpoint()
        self.accept_error: Exception | None = None

    def send(self, *headers: tuple[str, str]) -> list[Message]:
        """The messages of the application."""
        sent: list[Message] = []
        incoming = [{"type": f"websocket.{self.first}"}]
        closed = asyncio.Event()
        checks = WebSocketChecks(
            WebSocketOptions(), ["https://good.example"], lambda: self.admitted, Timers(ManualClock()), self.events
        )
        scope = {
            "type": "websocket",
            "root_path": "/realtime",
            "path": "/realtime/ws",
            "query_string": self.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers],
            "client": ("192.0.2.7", 1234),
            "extensions": self.extensions,
        }

        async def receive() -> Message:
            if incoming:
                return incoming.pop()
            await closed.wait()
            return {"type": "websocket.disconnect", "code": 1000}

        async def send(message: Message) -> None:
            if self.accept_error is not None:
                raise self.accept_error
            sent.append(message)
            if message["type"] == "websocket.close":
                closed.set()

        asyncio.run(WebSocketEndpoint("/ws", self.endpoint, checks)(scope, receive, send))
        return sent

    @property
    def refused(self) -> list[tuple[str, int, str]]:
        return [(event.path, event.status, event.reason) for event in self.events.of(HandshakeRefused)]


def test_request_is_accepted_with_its_subprotocol() -> None:
    """The session gets the handshake: the path without the prefix, query, headers and address."""
    request = Request("a=1")
    accepted, closed = request.send(("origin", "https://good.example"), ("sec-websocket-protocol", "one, two"))
    assert accepted == {"type": "websocket.accept", "subprotocol": "one", "headers": []}
    assert closed == {"type": "websocket.close", "code": 3001, "reason": "bye"}
    [handshake] = request.endpoint.handshakes
    assert (handshake.transport, handshake.path, handshake.query) == ("websocket", "/ws", "a=1")
    assert handshake.header("Origin") == "https://good.example"
    assert handshake.client_address == "192.0.2.7"


def test_request_without_subprotocol_is_accepted_without() -> None:
    """Servers take None, and not an empty text, for none."""
    assert Request().send()[0]["subprotocol"] is None


@pytest.mark.parametrize(
    ("query", "origin", "admitted", "status", "reason"),
    [
        ("", "https://evil.example", None, 403, "origin"),
        ("", "https://good.example, https://good.example", None, 403, "origin"),
        ("", "https://good.example", ErrorResponse(503, "limit", "full"), 503, "limit"),
        ("bad=1", "https://good.example", None, 400, "bad"),
        ("bug=1", "https://good.example", None, 500, "bad"),
    ],
)
def test_refused_request_gets_its_status(
    query: str, origin: str, admitted: ErrorResponse | None, status: int, reason: str
) -> None:
    """It is reported with the path of the endpoint, and has no session."""
    request = Request(query, admitted)
    start, body = request.send(("origin", origin))
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == status
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert body["body"].endswith(b"\n")
    assert request.refused == [("/ws", status, reason)]
    assert request.endpoint.handshakes == []
    assert len(request.events.of(InternalError)) == (status == 500)


def test_headers_of_a_refusal_are_sent() -> None:
    """With lower-case names, as ASGI demands."""
    assert (b"retry-after", b"5") in Request("bad=1").send()[0]["headers"]


def test_server_without_the_denial_extension_refuses_with_403() -> None:
    """A close before the accept is the only refusal that such a server knows. The report has the real status."""
    request = Request(admitted=ErrorResponse(503, "limit", "full"), denial=False)
    assert request.send() == [{"type": "websocket.close"}]
    assert request.refused == [("/ws", 503, "limit")]


def test_client_that_is_gone_already_has_no_session() -> None:
    """Before the checks, or when the WebSocket is accepted."""
    assert Request(first="disconnect").send() == []
    request = Request()
    request.accept_error = OSError("gone")
    assert request.send() == []
    assert request.endpoint.handshakes == []
