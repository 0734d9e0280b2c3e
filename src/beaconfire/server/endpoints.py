"""From the rows of the endpoint table to WebSocket endpoints and ASGI routes."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from beaconfire.base.timers import Timers
from beaconfire.config import Config
from beaconfire.model.events import EventSink, HandshakeRefused
from beaconfire.model.handshake import Handshake
from beaconfire.model.node import NodeIdentity
from beaconfire.node.node import Node
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec, CentrifugeConnection
from beaconfire.protocols.centrifuge.emulation import decode_emulation_request
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.polling import CommandsConnection, OnReply, OnStart, PollConnection
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.protocols.centrifuge.unidirectional_connection import UnidirectionalConnection
from beaconfire.protocols.plain.codec import PlainCodec
from beaconfire.protocols.plain.connection import PlainConnection
from beaconfire.protocols.port import Codec, Wire
from beaconfire.session.factory import SessionFactory
from beaconfire.transports import endpoint_table as rows
from beaconfire.transports import streams
from beaconfire.transports.asgi import MessageWires, WebSocketChecks, WebSocketEndpoint, refuse_websocket
from beaconfire.transports.endpoint_table import ENDPOINTS, EndpointRow
from beaconfire.transports.polling import Poll, PollCommands, PollWire
from beaconfire.transports.port import Admit, OpenSession, Receiver, Transport
from beaconfire.transports.request_checks import RequestChecks
from beaconfire.transports.traits import Pings
from beaconfire.transports.websocket import WireSelector
from beaconfire.transports.websocket_endpoints import (
    NOT_FOUND,
    OTHER_PATH,
    CentrifugeEndpoint,
    Endpoint,
    SingleCodecEndpoint,
    Wires,
    with_first_message,
)
from beaconfire.transports.websocket_request import WebSocketRequest


class _Framing(Struct, frozen=True):
    """How WebSocket messages are sent: on our own connections, or by an ASGI server, which has no pings for us."""

    make_wires: Callable[[Codec], Wires]
    has_pings: bool = True


class Endpoints:
    """The endpoints that the configuration enables."""

    def __init__(
        self,
        config: Config,
        node: Node,
        identity: NodeIdentity,
        admit: Admit,
        timers: Timers,
        events: EventSink,
    ) -> None:
        self._config = config
        self._node = node
        self._identity = identity
        self._timers = timers
        self._events = events
        self._checks = RequestChecks(config.client.allowed_origins, admit, events)
        self._emulated = streams.EmulatedSessions(lambda: secrets.token_urlsafe(24))
        enabled = [row for row in ENDPOINTS if is_enabled(config, row)]
        own = _Framing(lambda codec: WireSelector(codec, config.websocket))
        self.websocket = self._make_websocket(enabled, own)
        """The WebSocket endpoints of our own HTTP server, by path."""
        self._websocket_checks = WebSocketChecks(config.websocket, config.client.allowed_origins, admit, timers, events)
        self.routes: list[BaseRoute] = [
            WebSocketRoute(path, WebSocketEndpoint(path, endpoint, self._websocket_checks))
            for path, endpoint in self._make_websocket(enabled, _Framing(MessageWires, has_pings=False)).items()
        ]
        """Routes for all endpoints: those of WebSockets are for other ASGI servers. A WebSocket path answers other
        requests with 426."""
        self.routes += [Route(path, _upgrade_required) for path in self.websocket]
        self.routes += [Route(row.path, _HTTP_MAKERS[row.name](self, row)) for row in enabled if row.scheme == "http"]

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application for WebSockets on other paths."""
        await receive()
        self._events.emit(HandshakeRefused(OTHER_PATH, NOT_FOUND.status, NOT_FOUND.reason))
        await refuse_websocket(scope, send, NOT_FOUND)

    # WebSocket

    def _make_websocket(self, enabled: Iterable[EndpointRow], framing: _Framing) -> dict[str, Endpoint]:
        """The WebSocket endpoints by path."""
        return {
            endpoint_path(self._config, row): _WEBSOCKET_MAKERS[row.name](self, row, framing)
            for row in enabled
            if row.scheme == "ws"
        }

    def _native(self, row: EndpointRow, framing: _Framing) -> Endpoint:
        json, protobuf = JsonCodec(), ProtobufCodec()
        sessions = {codec.name: self._centrifuge(row, codec) for codec in (json, protobuf)}

        def open_session(request: WebSocketRequest, wire: Wire, transport_pings: bool) -> OpenSession:
            traits = replace(row.traits, pings=Pings.TRANSPORT) if transport_pings and framing.has_pings else None
            factory = sessions[wire.codec.name]
            return lambda transport, handshake: factory.open_session(transport, wire, handshake, traits)

        return CentrifugeEndpoint(framing.make_wires(json), framing.make_wires(protobuf), open_session)

    def _uni_websocket(self, row: EndpointRow, framing: _Framing) -> Endpoint:
        if not framing.has_pings:  # the protocol's own, as on other one-way transports
            row = replace(row, traits=replace(row.traits, pings=Pings.UNANSWERED))
        sessions = self._unidirectional(row)
        return SingleCodecEndpoint(
            framing.make_wires(UnidirectionalCodec()),
            lambda request, wire: with_first_message(sessions(wire), request.parameter(streams.CONNECT_PARAMETER)),
        )

    def _plain(self, row: EndpointRow, framing: _Framing) -> Endpoint:
        options, operations = self._config.plain, self._node.operations
        lobby = options.lobby_channel if options.lobby else None
        traits = replace(row.traits, may_stay_anonymous=lobby is not None)
        sessions = self._node.sessions(
            traits, lambda session: PlainConnection(session, operations, lobby), _new_client_id
        )
        return SingleCodecEndpoint(
            framing.make_wires(PlainCodec(lobby)),
            lambda request, wire: lambda transport, handshake: sessions.open_session(transport, wire, handshake),
        )

    # HTTP

    def _http_stream(self, row: EndpointRow) -> ASGIApp:
        json, protobuf = streams.lines(JsonCodec()), streams.varint_delimited(ProtobufCodec())
        return self._stream(row, streams.HTTP_STREAM, self._bidirectional(row), json, protobuf, self._emulated)

    def _sse(self, row: EndpointRow) -> ASGIApp:
        json = streams.events(JsonCodec())
        return self._stream(row, streams.SSE, self._bidirectional(row), json, None, self._emulated)

    def _uni_http_stream(self, row: EndpointRow) -> ASGIApp:
        wire = streams.lines(UnidirectionalCodec())
        return self._stream(row, streams.UNI_HTTP_STREAM, self._unidirectional(row), wire)

    def _uni_sse(self, row: EndpointRow) -> ASGIApp:
        wire = streams.events(UnidirectionalCodec())
        return self._stream(row, streams.UNI_SSE, self._unidirectional(row), wire)

    def _stream(
        self,
        row: EndpointRow,
        kind: streams.StreamKind,
        sessions: Callable[[Wire], OpenSession],
        json: streams.StreamWire,
        protobuf: streams.StreamWire | None = None,
        emulated: streams.EmulatedSessions | None = None,
    ) -> ASGIApp:
        options = getattr(self._config, row.section)
        ending = streams.StreamCloseTimeout(float(options.close_timeout), self._timers, self._events)
        body_max = int(options.max_request_body_size)
        return streams.StreamEndpoint(kind, self._checks, body_max, ending, sessions, json, protobuf, emulated)

    def _emulation(self, row: EndpointRow) -> ASGIApp:
        body_max = int(self._config.emulation.max_request_body_size)
        forwarding = self._node.forwarding
        forwarding.receive = self._emulated.receive
        return streams.Emulation(
            self._checks, body_max, self._emulated, decode_emulation_request, self._identity.uid, forwarding.forward
        )

    def _poll(self, row: EndpointRow) -> ASGIApp:
        operations, codec = self._node.operations, UnidirectionalCodec()
        wire = PollWire(codec)

        def open_session(transport: Transport, handshake: Handshake, on_start: OnStart) -> Receiver:
            sessions = self._node.sessions(
                row.traits, lambda session: PollConnection(session, operations, codec, on_start), _new_client_id
            )
            return sessions.open_session(transport, wire, handshake)

        return Poll(self._checks, *self._poll_limits(), open_session)

    def _commands(self, row: EndpointRow) -> ASGIApp:
        operations, codec = self._node.operations, JsonCodec()
        wire = PollWire(codec)

        def open_session(transport: Transport, handshake: Handshake, on_reply: OnReply) -> Receiver:
            sessions = self._node.sessions(
                row.traits, lambda session: CommandsConnection(session, operations, codec, on_reply), _new_client_id
            )
            return sessions.open_session(transport, wire, handshake)

        return PollCommands(self._checks, *self._poll_limits(), open_session)

    def _poll_limits(self) -> tuple[int, int, float]:
        options = self._config.poll
        return int(options.max_request_body_size), int(options.max_response_size), float(options.max_wait)

    # Sessions

    def _centrifuge(self, row: EndpointRow, codec: CentrifugeCodec) -> SessionFactory:
        operations = self._node.operations
        return self._node.sessions(
            row.traits, lambda session: CentrifugeConnection(session, operations, codec), _new_client_id
        )

    def _bidirectional(self, row: EndpointRow) -> Callable[[Wire], OpenSession]:
        """Makes the function that opens sessions on a wire of the bidirectional protocol."""
        sessions = {codec.name: self._centrifuge(row, codec) for codec in (JsonCodec(), ProtobufCodec())}
        return lambda wire: (
            lambda transport, handshake: sessions[wire.codec.name].open_session(transport, wire, handshake)
        )

    def _unidirectional(self, row: EndpointRow) -> Callable[[Wire], OpenSession]:
        """Makes the function that opens sessions on a wire of the unidirectional protocol."""
        operations, codec = self._node.operations, UnidirectionalCodec()
        sessions = self._node.sessions(
            row.traits, lambda session: UnidirectionalConnection(session, operations, codec), _new_client_id
        )
        return lambda wire: lambda transport, handshake: sessions.open_session(transport, wire, handshake)


_WEBSOCKET_MAKERS: Final[Mapping[str, Callable[[Endpoints, EndpointRow, _Framing], Endpoint]]] = {
    rows.WEBSOCKET.name: Endpoints._native,
    rows.UNI_WEBSOCKET.name: Endpoints._uni_websocket,
    rows.PLAIN.name: Endpoints._plain,
}
_HTTP_MAKERS: Final[Mapping[str, Callable[[Endpoints, EndpointRow], ASGIApp]]] = {
    rows.HTTP_STREAM.name: Endpoints._http_stream,
    rows.SSE.name: Endpoints._sse,
    rows.UNI_HTTP_STREAM.name: Endpoints._uni_http_stream,
    rows.UNI_SSE.name: Endpoints._uni_sse,
    rows.EMULATION.name: Endpoints._emulation,
    rows.POLL.name: Endpoints._poll,
    rows.COMMANDS.name: Endpoints._commands,
}


def is_enabled(config: Config, row: EndpointRow) -> bool:
    """Whether the configuration serves this endpoint."""
    return bool(getattr(getattr(config, row.section), "enabled", True))


def endpoint_path(config: Config, row: EndpointRow) -> str:
    """The path of the endpoint, which a setting may hold."""
    path: str = row.path or getattr(config, row.section).path
    return path


def _new_client_id() -> str:
    """A random UUID of the generator for secrets: a client that guesses an id could be excluded by it."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


async def _upgrade_required(request: Request) -> Response:
    """The response for a browser that opens a WebSocket address as a page."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    return PlainTextResponse("this address speaks WebSocket only\n", status_code=426, headers=headers)
