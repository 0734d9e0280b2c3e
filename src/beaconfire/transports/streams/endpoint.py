"""The endpoints of response streams: a request opens a session, and its response lasts as long as the session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Final, TypeAlias

from msgspec import Struct
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from beaconfire.base.request_body import ClientDisconnectedError
from beaconfire.protocols.port import Wire
from beaconfire.transports import endpoint_table
from beaconfire.transports.asgi_scope import read_handshake
from beaconfire.transports.endpoint_table import EndpointRow
from beaconfire.transports.port import ErrorResponse, OpenSession
from beaconfire.transports.request_checks import RequestChecks, RequestRefused
from beaconfire.transports.reset import EXTENSION, SENDS_AT_ONCE
from beaconfire.transports.streams.emulation import BINARY, EmulatedSessions
from beaconfire.transports.streams.event_ids import resume
from beaconfire.transports.streams.response_stream import (
    ResponseStream,
    StreamCloseTimeout,
    StreamConnection,
    StreamTraits,
)
from beaconfire.transports.streams.wires import StreamWire

CONNECT_PARAMETER: Final = "cf_connect"

StreamSessionFactory: TypeAlias = Callable[[Wire], OpenSession]
"""Returns the function that opens a session on this wire."""

_HEADERS: Final = {
    "X-Accel-Buffering": "no",  # keeps nginx and similar proxies from buffering the stream
    "Cache-Control": "private, no-cache, no-store, must-revalidate, max-age=0",
    "Pragma": "no-cache",
    "Expires": "0",
}


class StreamKind(Struct, frozen=True):
    """The requests and responses of one kind of stream (protocol reference, section 16).

    A GET request may hold the first message in its query, because an `EventSource` can only make GET requests.
    """

    traits: StreamTraits
    methods: tuple[str, ...]
    content_type: str

    @property
    def queried(self) -> bool:
        return "GET" in self.methods


_LINES: Final = "application/json; charset=utf-8"
_EVENTS: Final = "text/event-stream; charset=utf-8"

_COMMENT: Final = b":\n\n"
"""The start of event streams: an empty comment, which is not an event (HTML standard, section 9.2.6). It has the same
line ends as the events. The reference implementation starts with CR LF. Clients that wait for the LF after a CR
(version 2 of the npm package `eventsource`) then lose the first event if it is in the same read."""


def _kind(row: EndpointRow, content_type: str, preamble: bytes = b"", has_ids: bool = False) -> StreamKind:
    traits = StreamTraits(row.name, preamble, unidirectional=row.is_unidirectional, has_ids=has_ids)
    return StreamKind(traits, row.methods, content_type)


HTTP_STREAM: Final = _kind(endpoint_table.HTTP_STREAM, _LINES)
SSE: Final = _kind(endpoint_table.SSE, _EVENTS, _COMMENT)
UNI_HTTP_STREAM: Final = _kind(endpoint_table.UNI_HTTP_STREAM, _LINES)
UNI_SSE: Final = _kind(endpoint_table.UNI_SSE, _EVENTS, _COMMENT, has_ids=True)


class StreamEndpoint:
    """An ASGI application: a request opens a session, and the response contains all messages of the session.

    A client that sends `application/octet-stream` uses Protobuf, if `protobuf` is given; all others use JSON. With
    `emulated`, the session receives commands by emulation.
    """

    def __init__(
        self,
        kind: StreamKind,
        checks: RequestChecks,
        body_max: int,
        close_timeout: StreamCloseTimeout,
        session_factory: StreamSessionFactory,
        json: StreamWire,
        protobuf: StreamWire | None = None,
        emulated: EmulatedSessions | None = None,
    ) -> None:
        self._kind = kind
        self._checks = checks
        self._body_max = body_max
        self._close_timeout = close_timeout
        self._session_factory = session_factory
        self._json = json
        self._protobuf = protobuf
        self._emulated = emulated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "OPTIONS":
            await self._checks.preflight(request, self._kind.methods)(scope, receive, send)
            return
        try:
            message = await self._first_message(request)
        except RequestRefused as refused:
            await self._checks.refuse(request, refused.response)(scope, receive, send)
            return
        except ClientDisconnectedError:
            return
        await self._stream(request, message, send)

    async def _first_message(self, request: Request) -> bytes:
        """Checks a request and returns its first message. Raises RequestRefused and ClientDisconnectedError."""
        kind, checks = self._kind, self._checks
        checks.check(request, kind.methods)
        message = b""
        if kind.queried and request.method == "GET":
            message = request.query_params.get(CONNECT_PARAMETER, "").encode()
        if not message:
            message = await checks.body(request, self._body_max, f"{kind.traits.name}.max_request_body_size")
        if kind.traits.has_ids and (last_id := request.headers.get("last-event-id")):
            message = resume(message, last_id)
        if not message and not kind.traits.unidirectional:
            where = f"the body or the query parameter {CONNECT_PARAMETER}" if kind.queried else "the body"
            raise RequestRefused(ErrorResponse(400, "bad", f"expected a connect command in {where}"))
        response = checks.admit()
        if response is not None:
            raise RequestRefused(response)
        return message

    async def _stream(self, request: Request, message: bytes, send: Send) -> None:
        kind, wire, content_type, binary = self._kind, self._json, self._kind.content_type, False
        if self._protobuf is not None and request.headers.get("content-type", "").startswith(BINARY):
            wire, content_type, binary = self._protobuf, BINARY, True
        headers = {"Content-Type": content_type, **_HEADERS, **self._checks.cors(request)}
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        secret = self._emulated.new_secret() if self._emulated is not None else ""
        extensions = request.scope.get("extensions", {})
        connection = StreamConnection(
            send, extensions.get(SENDS_AT_ONCE, _may_suspend), extensions.get(EXTENSION, _no_reset)
        )
        stream = ResponseStream(kind.traits, wire, connection, fields, self._close_timeout, secret)
        with self._emulated.present(stream) if self._emulated is not None else nullcontext():
            handshake = read_handshake(request.scope, stream.name)
            await stream.run(self._session_factory(wire), handshake, request.receive, message, binary)


def _may_suspend() -> bool:
    """Nothing is known about `send` of other ASGI servers."""
    return False


def _no_reset() -> None:
    """Replaces the reset under other ASGI servers, which close such connections after their own timeouts."""
