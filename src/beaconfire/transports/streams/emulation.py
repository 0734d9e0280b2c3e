"""Emulation: receives the commands of clients whose transport is a response stream, as separate POST requests.

Such requests may overtake each other. The commands within one request are handled in order. A client authenticates by
the session's secret, and names the node of the session by the node's id; the connect result contains both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from beaconfire.base.errors import EngineError
from beaconfire.base.request_body import ClientDisconnectedError
from beaconfire.protocols.port import ProtocolError
from beaconfire.transports.endpoint_table import EMULATION
from beaconfire.transports.port import ErrorResponse
from beaconfire.transports.request_checks import RequestChecks, RequestRefused
from beaconfire.transports.streams.response_stream import ResponseStream

(LIMIT,) = EMULATION.limit_settings
BINARY: Final = "application/octet-stream"


class EmulatedSessions:
    """The sessions of this node that receive commands by emulation, by their secret."""

    def __init__(self, new_secret: Callable[[], str]) -> None:
        """`new_secret` makes texts that are unique and cannot be guessed."""
        self.new_secret = new_secret
        self._streams: dict[str, ResponseStream] = {}

    @contextmanager
    def present(self, stream: ResponseStream) -> Iterator[None]:
        """Within this context, `receive` finds the stream by its secret."""
        self._streams[stream.secret] = stream
        try:
            yield
        finally:
            del self._streams[stream.secret]

    async def receive(self, secret: str, data: bytes, binary: bool) -> bool:
        """Gives commands to the session with this secret. False if the session is unknown or has another encoding."""
        stream = self._streams.get(secret)
        return stream is not None and await stream.receive(data, binary)

    def __len__(self) -> int:
        return len(self._streams)


class EmulationRequest(Protocol):
    """A decoded request: the session's secret, the node's id or an empty text, and commands."""

    @property
    def session(self) -> str: ...

    @property
    def data(self) -> bytes: ...

    @property
    def node(self) -> str: ...


Forward: TypeAlias = Callable[[str, str, bytes, bool], Awaitable[bool]]
"""Passes commands to another node: node, secret of the session, data, and whether the data is binary. False if there is
no such node or session. Raises EngineError if the node cannot be reached."""

DecodeRequest: TypeAlias = Callable[[bytes, bool], EmulationRequest]
"""Decodes the body of a request, which is binary or not. Raises ProtocolError."""


class Emulation:
    """`POST /emulation`: 204 when the session has received the commands. Their replies are sent in the stream.

    If the session is on another node, that node gets the commands. 404 means that the session has ended: the client
    must connect again. 503 means that the other node cannot be reached at present.
    """

    def __init__(
        self,
        checks: RequestChecks,
        body_max: int,
        emulated: EmulatedSessions,
        decode: DecodeRequest,
        node: str,
        forward: Forward,
    ) -> None:
        """`node` is the id of this node. `forward` passes commands to another node."""
        self._checks = checks
        self._body_max = body_max
        self._emulated = emulated
        self._decode = decode
        self._node = node
        self._forward = forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "OPTIONS":
            response = self._checks.preflight(request, EMULATION.methods)
        else:
            try:
                response = await self._receive(request)
            except RequestRefused as refused:
                response = self._checks.refuse(request, refused.response)
            except ClientDisconnectedError:
                return
        await response(scope, receive, send)

    async def _receive(self, request: Request) -> Response:
        self._checks.check(request, EMULATION.methods)
        body = await self._checks.body(request, self._body_max, LIMIT)
        binary = request.headers.get("content-type", "").startswith(BINARY)
        try:
            command = self._decode(body, binary)
        except ProtocolError as error:
            raise RequestRefused(ErrorResponse(400, "bad", str(error))) from None
        try:
            if command.node in ("", self._node):
                received = await self._emulated.receive(command.session, command.data, binary)
            else:
                received = await self._forward(command.node, command.session, command.data, binary)
        except EngineError as error:
            text = f"the node of the session cannot be reached: {error.detail}; try again"
            raise RequestRefused(ErrorResponse(503, "bad", text)) from None
        if not received:
            reply = {"code": 404, "message": "unknown session: it has ended; connect again"}
            return JSONResponse({"error": reply}, 404, self._checks.cors(request))
        return Response(status_code=204, headers=self._checks.cors(request))
