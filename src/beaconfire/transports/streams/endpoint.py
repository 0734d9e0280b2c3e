"""A path behind which a response begins that ends with its session."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Final, TypeAlias

from msgspec import Struct
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from beaconfire.base.request_body import ClientDisconnectedError
from beaconfire.protocols.port import Wire
from beaconfire.transports.port import OpenSession, Refusal
from beaconfire.transports.request_checks import RequestChecks, RequestRefused
from beaconfire.transports.reset import EXTENSION
from beaconfire.transports.streams.emulation import BINARY, EmulatedSessions
from beaconfire.transports.streams.resuming import resume
from beaconfire.transports.streams.stream import ResponseStream, StreamEnding, StreamTraits

CONNECT_PARAMETER: Final = "cf_connect"

Arrange: TypeAlias = Callable[[Wire], OpenSession]
"""Makes the arrival of a session on this wire."""

_HEADERS: Final = {
    "X-Accel-Buffering": "no",  # nginx and its relatives would collect the stream otherwise
    "Cache-Control": "private, no-cache, no-store, must-revalidate, max-age=0",
    "Pragma": "no-cache",
    "Expires": "0",
}


class StreamKind(Struct, frozen=True):
    """What requests and responses of one kind of stream look like (protocol reference, section 16).

    With `queried`, the opening may be in the query, where the only request that `EventSource` can make has to put it.
    """

    traits: StreamTraits
    methods: tuple[str, ...]
    content_type: str
    queried: bool = False


_LINES: Final = "application/json; charset=utf-8"
_EVENTS: Final = "text/event-stream; charset=utf-8"

_COMMENT: Final = b":\n\n"
"""What event streams begin with: an empty comment, which is no event (HTML standard, section 9.2.6). Its line ends are
those of the events. The reference begins with CR LF, after which readers that wait for the LF of a CR (version 2 of the
npm package `eventsource`) lose the first event if it comes in the same piece."""

HTTP_STREAM: Final = StreamKind(StreamTraits("http_stream"), ("POST",), _LINES)
SSE: Final = StreamKind(StreamTraits("sse", _COMMENT), ("GET", "POST"), _EVENTS, queried=True)
UNI_HTTP_STREAM: Final = StreamKind(StreamTraits("uni_http_stream", unidirectional=True), ("POST",), _LINES)
UNI_SSE: Final = StreamKind(
    StreamTraits("uni_sse", _COMMENT, unidirectional=True, has_ids=True), ("GET", "POST"), _EVENTS, queried=True
)


class StreamEndpoint:
    """An ASGI application: a request that opens a session is answered with everything that has to say.

    A client that sends octets speaks Protobuf, if there is a wire for it, and any other JSON. With `emulated`, it can
    be spoken in by other requests.
    """

    def __init__(
        self,
        kind: StreamKind,
        checks: RequestChecks,
        body_max: int,
        ending: StreamEnding,
        arrange: Arrange,
        json: Wire,
        protobuf: Wire | None = None,
        emulated: EmulatedSessions | None = None,
    ) -> None:
        self._kind = kind
        self._checks = checks
        self._body_max = body_max
        self._stream_ending = ending
        self._arrange = arrange
        self._json = json
        self._protobuf = protobuf
        self._emulated = emulated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "OPTIONS":
            await self._checks.preflight(request, ", ".join([*self._kind.methods, "OPTIONS"]))(scope, receive, send)
            return
        try:
            opening = await self._opening(request)
        except RequestRefused as refused:
            await self._checks.refuse(request, refused.refusal)(scope, receive, send)
            return
        except ClientDisconnectedError:
            return
        await self._stream(request, opening, send)

    async def _opening(self, request: Request) -> bytes:
        """What the client says first, if it may come in. Raises RequestRefused and ClientDisconnectedError."""
        kind, checks = self._kind, self._checks
        checks.check(request, kind.methods)
        opening = b""
        if kind.queried and request.method == "GET":
            opening = request.query_params.get(CONNECT_PARAMETER, "").encode()
        if not opening:
            opening = await checks.body(request, self._body_max, f"{kind.traits.name}.max_request_body_size")
        if kind.traits.has_ids and (last_id := request.headers.get("last-event-id")):
            opening = resume(opening, last_id)
        if not opening and not kind.traits.unidirectional:
            where = f"the body or the query parameter {CONNECT_PARAMETER}" if kind.queried else "the body"
            raise RequestRefused(Refusal(400, "bad", f"expected a connect command in {where}"))
        refusal = checks.admit()
        if refusal is not None:
            raise RequestRefused(refusal)
        return opening

    async def _stream(self, request: Request, opening: bytes, send: Send) -> None:
        kind, wire, content_type, binary = self._kind, self._json, self._kind.content_type, False
        if self._protobuf is not None and request.headers.get("content-type", "").startswith(BINARY):
            wire, content_type, binary = self._protobuf, BINARY, True
        headers = {"Content-Type": content_type, **_HEADERS, **self._checks.cors(request)}
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        secret = self._emulated.new_secret() if self._emulated is not None else ""
        reset = request.scope.get("extensions", {}).get(EXTENSION, _nothing)
        stream = ResponseStream(kind.traits, wire, send, fields, self._stream_ending, reset, secret)
        with self._emulated.present(stream) if self._emulated is not None else nullcontext():
            await stream.run(self._arrange(wire), request.receive, opening, binary)


def _nothing() -> None:
    """What other ASGI servers than ours offer in place of a reset: they end such connections in their own time."""
