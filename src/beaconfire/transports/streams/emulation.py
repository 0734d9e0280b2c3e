"""The client's half of a session whose server's half is a stream: commands come by requests of their own.

Such requests may overtake each other, and each command in one is handled in order. Whoever knows the secret of the
connect result may speak; where the session is, the node's id in the same result says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from beaconfire.base.request_body import ClientDisconnectedError
from beaconfire.protocols.centrifuge import schema_pb2 as wire
from beaconfire.transports.port import Refusal
from beaconfire.transports.request_checks import RequestChecks, RequestRefused
from beaconfire.transports.streams.stream import ResponseStream

LIMIT: Final = "emulation.max_request_body_size"
BINARY: Final = "application/octet-stream"


class EmulatedSessions:
    """The sessions of this node that are spoken in by other requests, by their secret."""

    def __init__(self, new_secret: Callable[[], str]) -> None:
        """`new_secret` makes texts that are unique and not to be guessed."""
        self.new_secret = new_secret
        self._streams: dict[str, ResponseStream] = {}

    @contextmanager
    def present(self, stream: ResponseStream) -> Iterator[None]:
        """Within, the stream is found by its secret."""
        self._streams[stream.secret] = stream
        try:
            yield
        finally:
            del self._streams[stream.secret]

    def find(self, secret: str) -> ResponseStream | None:
        return self._streams.get(secret)

    def __len__(self) -> int:
        return len(self._streams)


class _Spoken(Struct):
    """A request in JSON. `data` is what would be a WebSocket message: commands, a line each."""

    session: str
    data: str
    node: str | None = None


_decode: Final = msgspec.json.Decoder(_Spoken).decode


class Emulation:
    """`POST /emulation`: 204 once the commands have been taken; their replies come in the stream.

    404 says that the session is not, or no longer, on this node: the client has to connect again.
    """

    def __init__(self, checks: RequestChecks, body_max: int, emulated: EmulatedSessions, node: str) -> None:
        self._checks = checks
        self._body_max = body_max
        self._emulated = emulated
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "OPTIONS":
            response = self._checks.preflight(request, "POST, OPTIONS")
        else:
            try:
                response = await self._take(request)
            except RequestRefused as refused:
                response = self._checks.refuse(request, refused.refusal)
            except ClientDisconnectedError:
                return
        await response(scope, receive, send)

    async def _take(self, request: Request) -> Response:
        self._checks.check(request, ("POST",))
        body = await self._checks.body(request, self._body_max, LIMIT)
        binary = request.headers.get("content-type", "").startswith(BINARY)
        session, data, node = _read(body, binary)
        stream = self._emulated.find(session)
        if (node and node != self._node) or stream is None or not await stream.receive(data, binary):
            error = {"code": 404, "message": "unknown session: it has ended or is on another node; connect again"}
            return JSONResponse({"error": error}, 404, self._checks.cors(request))
        return Response(status_code=204, headers=self._checks.cors(request))


def _read(body: bytes, binary: bool) -> tuple[str, bytes, str]:
    """Session, commands and node. Raises RequestRefused."""
    try:
        if binary:
            message = wire.EmulationRequest.FromString(body)
            return message.session, message.data, message.node
        spoken = _decode(body)
        return spoken.session, spoken.data.encode(), spoken.node or ""
    except (msgspec.DecodeError, DecodeError, UnicodeEncodeError) as error:
        expected = "an EmulationRequest" if binary else '{"session": …, "node": …, "data": …}'
        raise RequestRefused(Refusal(400, "bad", f"expected {expected}: {error}")) from None
