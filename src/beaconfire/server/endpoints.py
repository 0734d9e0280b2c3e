"""From the rows of the endpoint table to WebSocket endpoints and ASGI routes."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from beaconfire.base.timers import Timers
from beaconfire.config import Config
from beaconfire.model.events import EventSink
from beaconfire.model.node import NodeIdentity
from beaconfire.node.node import Node
from beaconfire.protocols.centrifuge.emulation import decode_emulation_request
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.protocols.plain import PlainCodec
from beaconfire.protocols.port import Codec, Wire
from beaconfire.transports import endpoint_table as rows
from beaconfire.transports import streams
from beaconfire.transports.endpoint_table import ENDPOINTS, EndpointRow
from beaconfire.transports.polling import Poll, PollCommands
from beaconfire.transports.port import Admit, OpenSession
from beaconfire.transports.request_checks import RequestChecks
from beaconfire.transports.traits import SessionTraits
from beaconfire.transports.websocket import (
    CentrifugeEndpoint,
    Endpoint,
    SingleCodecEndpoint,
    UpgradeRequest,
    WireSelector,
    with_first_message,
)


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
        self.websocket: dict[str, Endpoint] = {
            endpoint_path(config, row): _WEBSOCKET_MAKERS[row.name](self, row) for row in enabled if row.scheme == "ws"
        }
        """WebSocket endpoints by path."""
        self.routes: list[BaseRoute] = [Route(path, _upgrade_required) for path in self.websocket]
        """Routes for all endpoints. A WebSocket path answers other requests with 426."""
        self.routes += [Route(row.path, _HTTP_MAKERS[row.name](self, row)) for row in enabled if row.scheme == "http"]

    # WebSocket

    def _native(self, row: EndpointRow) -> Endpoint:
        sessions = self._node.sessions(row.traits, _new_client_id)

        def open_session(request: UpgradeRequest, wire: Wire, transport_pings: bool) -> OpenSession:
            traits = SessionTraits(app_pings=False) if transport_pings else None
            return lambda transport, handshake: sessions.open_session(transport, wire, handshake, traits)

        return CentrifugeEndpoint(self._wires(JsonCodec()), self._wires(ProtobufCodec()), open_session)

    def _uni_websocket(self, row: EndpointRow) -> Endpoint:
        sessions = self._sessions(row.traits)
        return SingleCodecEndpoint(
            self._wires(UnidirectionalCodec()),
            lambda request, wire: with_first_message(sessions(wire), request.parameter(streams.CONNECT_PARAMETER)),
        )

    def _plain(self, row: EndpointRow) -> Endpoint:
        options = self._config.plain
        lobby = options.lobby_channel if options.lobby else None
        traits = SessionTraits(connect_first=row.traits.connect_first, app_pings=row.traits.app_pings, lobby=lobby)
        sessions = self._sessions(traits)
        return SingleCodecEndpoint(self._wires(PlainCodec(lobby)), lambda request, wire: sessions(wire))

    def _wires(self, codec: Codec) -> WireSelector:
        return WireSelector(codec, self._config.websocket)

    # HTTP

    def _http_stream(self, row: EndpointRow) -> ASGIApp:
        json, protobuf = streams.lines(JsonCodec()), streams.varint_delimited(ProtobufCodec())
        return self._stream(row, streams.HTTP_STREAM, json, protobuf, self._emulated)

    def _sse(self, row: EndpointRow) -> ASGIApp:
        return self._stream(row, streams.SSE, streams.events(JsonCodec()), None, self._emulated)

    def _uni_http_stream(self, row: EndpointRow) -> ASGIApp:
        return self._stream(row, streams.UNI_HTTP_STREAM, streams.lines(UnidirectionalCodec()))

    def _uni_sse(self, row: EndpointRow) -> ASGIApp:
        return self._stream(row, streams.UNI_SSE, streams.events(UnidirectionalCodec()))

    def _stream(
        self,
        row: EndpointRow,
        kind: streams.StreamKind,
        json: streams.StreamWire,
        protobuf: streams.StreamWire | None = None,
        emulated: streams.EmulatedSessions | None = None,
    ) -> ASGIApp:
        options = getattr(self._config, row.section)
        ending = streams.StreamCloseTimeout(float(options.close_timeout), self._timers, self._events)
        return streams.StreamEndpoint(
            kind,
            self._checks,
            int(options.max_request_body_size),
            ending,
            self._sessions(row.traits),
            json,
            protobuf,
            emulated,
        )

    def _emulation(self, row: EndpointRow) -> ASGIApp:
        body_max = int(self._config.emulation.max_request_body_size)
        return streams.Emulation(self._checks, body_max, self._emulated, decode_emulation_request, self._identity.uid)

    def _poll(self, row: EndpointRow) -> ASGIApp:
        return Poll(
            self._checks, *self._poll_limits(), self._sessions(row.traits)(streams.lines(UnidirectionalCodec()))
        )

    def _commands(self, row: EndpointRow) -> ASGIApp:
        wire = streams.lines(JsonCodec())
        return PollCommands(self._checks, *self._poll_limits(), self._sessions(row.traits)(wire))

    def _poll_limits(self) -> tuple[int, int, float]:
        options = self._config.poll
        return int(options.max_request_body_size), int(options.max_response_size), float(options.max_wait)

    def _sessions(self, traits: SessionTraits) -> Callable[[Wire], OpenSession]:
        sessions = self._node.sessions(traits, _new_client_id)
        return lambda wire: lambda transport, handshake: sessions.open_session(transport, wire, handshake)


_WEBSOCKET_MAKERS: Final[Mapping[str, Callable[[Endpoints, EndpointRow], Endpoint]]] = {
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
