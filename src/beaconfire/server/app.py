"""The composition root: every part is made here, from the configuration, and handed what it needs.

A new protocol, transport or engine is registered here with one line.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import socket
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import structs
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from beaconfire import __version__
from beaconfire.api.http import CALL_PATHS, ApiHttp
from beaconfire.api.methods import ApiMethods
from beaconfire.auth.keys import ApiKeys
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import Clock, SystemClock
from beaconfire.base.timers import PreciseTimers, Timers
from beaconfire.base.units import Seconds
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.config import Config
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.model.events import (
    EventDispatcher,
    EventSink,
    LimitHit,
    NodeStatistics,
)
from beaconfire.node.admission import Admission
from beaconfire.node.cluster import Cluster
from beaconfire.node.local_sessions import LocalSessions
from beaconfire.node.node import Node, NodeOptions
from beaconfire.observe.health import Health
from beaconfire.observe.http import QUIET, ObserveDirectPosts, ObserveRequests, RequestRecorder
from beaconfire.observe.logs import LogSink
from beaconfire.observe.metrics import MetricsSink
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.policy.tokens import TokenVerifier
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.protocols.plain import PlainCodec
from beaconfire.protocols.port import Codec, Wire
from beaconfire.session.factory import SessionFactory
from beaconfire.session.traits import SessionTraits
from beaconfire.transports.http import DirectPosts, HttpGuard
from beaconfire.transports.options import StreamOptions
from beaconfire.transports.polling import Poll, PollCommands
from beaconfire.transports.port import OpenSession
from beaconfire.transports.request_checks import RequestChecks
from beaconfire.transports.socket_writes import send_all
from beaconfire.transports.streams import (
    CONNECT_PARAMETER,
    HTTP_STREAM,
    SSE,
    UNI_HTTP_STREAM,
    UNI_SSE,
    EmulatedSessions,
    Emulation,
    StreamEnding,
    StreamEndpoint,
    StreamKind,
    events,
    lines,
    varint_delimited,
)
from beaconfire.transports.websocket import (
    Endpoint,
    NativeEndpoint,
    Shortcut,
    SimpleEndpoint,
    UpgradeRequest,
    WebSocketAcceptor,
    Wires,
    opened,
)

NATIVE_PATH = "/connection/websocket"
HTTP_STREAM_PATH = "/connection/http_stream"
SSE_PATH = "/connection/sse"
UNI_WEBSOCKET_PATH = "/connection/uni_websocket"
UNI_HTTP_STREAM_PATH = "/connection/uni_http_stream"
UNI_SSE_PATH = "/connection/uni_sse"
EMULATION_PATH = "/emulation"
POLL_PATH = "/connection/poll"
COMMANDS_PATH = "/connection/commands"
TIMER_RESOLUTION_S = 0.1
SWEEP_INTERVAL_S = 1.0
FOREVER = Seconds(100 * 365 * 86400)

_API_ASSETS = ("/api/page.js", "/api/page.css")
_TEMPLATES = (
    "/",
    "/demo/{file:path}",
    "/client/{file}",
    "/api",
    "/api/",
    "/api/openapi.json",
    *_API_ASSETS,
    *QUIET,
    *CALL_PATHS,
    NATIVE_PATH,
    HTTP_STREAM_PATH,
    SSE_PATH,
    UNI_HTTP_STREAM_PATH,
    UNI_SSE_PATH,
    EMULATION_PATH,
    POLL_PATH,
    COMMANDS_PATH,
)
"""Paths as metrics and logs know them. Successful API calls are not logged one by one."""

_BROWSER_CLIENT = Path(__file__).parent.parent / "web" / "client"
_SCRIPT_HEADERS = {
    "Access-Control-Allow-Origin": "*",  # pages of any site may import it; whom it may connect is another matter
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_DEMO = Path(__file__).parent.parent / "web" / "demo"
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class App:
    """A whole server but for its process and listening socket. Make it inside a running event loop."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.timers = Timers(self.clock)
        self.metrics = MetricsSink(config.namespaces)
        self.log = LogSink(clock=self.clock)
        self.events: EventSink = EventDispatcher(self.metrics, self.log)
        self.engine = memory_engine(
            self.clock,
            history_bytes_max=int(config.engine.history_max_bytes),
            on_history_full=lambda: self.events.emit(LimitHit("engine.history_max_bytes", "")),
        )
        self.node = _node(config, self.engine, self.timers, self.events)
        self.cluster = Cluster(self.engine.control, LocalSessions(self.node))
        self.health = Health()
        self.admission = Admission(config.client, self._count_connections, self.clock, self.events)
        endpoints = _endpoints(config, self.node)
        self.websocket_paths = tuple(endpoints)
        self.acceptor = WebSocketAcceptor(
            endpoints,
            config.websocket,
            config.client.allowed_origins,
            self.admission.admit,
            self.timers,
            self.events,
        )
        recorder = RequestRecorder(self.metrics, (*_TEMPLATES, *self.websocket_paths), QUIET + CALL_PATHS)
        api = _api(self)
        self.asgi: ASGIApp = ObserveRequests(Router(_routes(self, api)), recorder, self.clock)
        guard = HttpGuard(config.server, self.timers, self.events)
        self.http: Callable[..., asyncio.Protocol] = guard.protocol
        if api is not None:
            answer = ObserveDirectPosts(api.handle_post, recorder, self.clock)
            self.http = DirectPosts(guard, CALL_PATHS, answer, config.server.trusted_proxies).protocol
        self.http = Shortcut(self.acceptor, self.http, config.server, self.timers, self.events).protocol
        self.metrics.observe_nodes(self._statistics)
        self._sweep_s = self.clock.now_s()
        self._tick: asyncio.TimerHandle | None = None

    def _count_connections(self) -> int:
        return len(self.node.connections) + len(self.node.leaving)

    def _statistics(self) -> NodeStatistics:
        """The node's figures, and those of its engine."""
        history = self.engine.broker.statistics()
        return structs.replace(
            self.node.statistics(), history_publications=history.publications, history_bytes=history.bytes
        )

    async def start(self) -> None:
        """Engine first, doors last: readiness goes green when everything behind it works."""
        await self.node.start()
        await self.cluster.start()
        self._run_timers()
        self.health.started()

    def begin_drain(self) -> None:
        """Nobody new comes in; those inside don't notice yet."""
        self.admission.draining = True
        self.health.draining()

    async def stop(self) -> None:
        """The reverse of start, after the sessions have gone."""
        await self.cluster.stop()
        await self.node.stop()
        if self._tick is not None:
            self._tick.cancel()
        self.log.flush()

    def _run_timers(self) -> None:
        """Drives all timers of this node with one of the event loop's."""
        self._tick = asyncio.get_running_loop().call_later(TIMER_RESOLUTION_S, self._run_timers)
        self.timers.run_due()
        self.log.tick()
        if self.clock.now_s() >= self._sweep_s:
            more = self.engine.sweep()
            self._sweep_s = self.clock.now_s() + (0 if more else SWEEP_INTERVAL_S)


def _node(config: Config, engine: MemoryEngine, timers: Timers, events: EventSink) -> Node:
    channels = Namespaces(
        config.channel, config.namespaces, config.channel_names, float(config.engine.history_meta_ttl)
    )
    client = config.client
    access = Access(
        channels, client.insecure, client.user_personal_channel_namespace if client.user_personal_channel else None
    )
    return Node(
        NodeOptions(
            uid=str(uuid.uuid4()),
            name=f"{socket.gethostname()}_{config.server.port}",
            version=__version__,
            detach_delay_s=float(config.engine.detach_delay),
        ),
        config.client,
        engine,
        channels,
        access,
        ConfiguredPolicy(*_verifiers(config, timers.clock, events), channels, access, config.client),
        timers,
        events,
        schedule=asyncio.get_running_loop().call_soon,
        prompt_timers=PreciseTimers(timers.clock, asyncio.get_running_loop().call_later),
        random=random.random,
        send_all=send_all,
    )


def _verifiers(config: Config, clock: Clock, events: EventSink) -> tuple[TokenVerifier, TokenVerifier]:
    connection = JWTVerifier(_lenient(config, config.token), clock, events)
    if config.subscription_token is None:
        return connection, connection
    separate = _lenient(config, config.subscription_token)
    return connection, JWTVerifier(separate, clock, events, section="subscription_token")


def _lenient(config: Config, options: TokenOptions) -> TokenOptions:
    """In insecure mode tokens are verified but for their expiry (section 6, rule 1 of the protocol reference)."""
    return structs.replace(options, leeway=FOREVER) if config.client.insecure else options


def _endpoints(config: Config, node: Node) -> dict[str, Endpoint]:
    """The WebSocket doors: a path, who decides about the wire there, and how its sessions behave."""
    native = SessionFactory(node, SessionTraits(), _connection_id)

    def arrange(request: UpgradeRequest, wire: Wire, transport_pings: bool) -> OpenSession:
        traits = SessionTraits(app_pings=False) if transport_pings else None
        return lambda transport: native.open_session(transport, wire, traits)

    def wires(codec: Codec) -> Wires:
        return Wires(codec, config.websocket)

    endpoints: dict[str, Endpoint] = {NATIVE_PATH: NativeEndpoint(wires(JsonCodec()), wires(ProtobufCodec()), arrange)}
    if config.uni_websocket.enabled:
        listen = _arrange(node, SessionTraits(app_pings=False, unidirectional=True))
        endpoints[UNI_WEBSOCKET_PATH] = SimpleEndpoint(
            wires(UnidirectionalCodec()),
            lambda request, wire: opened(listen(wire), request.parameter(CONNECT_PARAMETER)),
        )
    if config.plain.enabled:
        lobby = config.plain.lobby_channel if config.plain.lobby else None
        plain = _arrange(node, SessionTraits(connect_first=False, app_pings=False, lobby=lobby))
        endpoints[config.plain.path] = SimpleEndpoint(wires(PlainCodec(lobby)), lambda request, wire: plain(wire))
    return endpoints


def _streams(app: App) -> list[BaseRoute]:
    """The doors to the native protocol for clients without WebSocket."""
    config, node = app.config, app.node
    checks = RequestChecks(config.client.allowed_origins, app.admission.admit, app.events)
    emulated = EmulatedSessions(lambda: secrets.token_urlsafe(24))
    talk = _arrange(node, SessionTraits())
    listen = _arrange(node, SessionTraits(unidirectional=True))
    json, protobuf, one_way = JsonCodec(), ProtobufCodec(), UnidirectionalCodec()

    def door(path: str, kind: StreamKind, options: StreamOptions, *how: Any) -> list[BaseRoute]:
        ending = StreamEnding(float(options.close_timeout), app.timers, app.events)
        endpoint = StreamEndpoint(kind, checks, int(options.max_request_body_size), ending, *how)
        return [Route(path, endpoint)] if options.enabled else []

    emulation = Emulation(checks, int(config.emulation.max_request_body_size), emulated, node.options.uid)
    return [
        *door(
            HTTP_STREAM_PATH, HTTP_STREAM, config.http_stream, talk, lines(json), varint_delimited(protobuf), emulated
        ),
        *door(SSE_PATH, SSE, config.sse, talk, events(json), None, emulated),
        *door(UNI_HTTP_STREAM_PATH, UNI_HTTP_STREAM, config.uni_http_stream, listen, lines(one_way)),
        *door(UNI_SSE_PATH, UNI_SSE, config.uni_sse, listen, events(one_way)),
        Route(EMULATION_PATH, emulation),
        *_polls(app, checks),
    ]


def _polls(app: App, checks: RequestChecks) -> list[BaseRoute]:
    """The doors for clients whose every request is a session of its own."""
    options, node = app.config.poll, app.node
    if not options.enabled:
        return []
    how = int(options.max_request_body_size), int(options.max_response_size), float(options.max_wait)
    receive = _arrange(node, SessionTraits(unidirectional=True, per_request=True))(lines(UnidirectionalCodec()))
    say = _arrange(node, SessionTraits(per_request=True))(lines(JsonCodec()))
    return [
        Route(POLL_PATH, Poll(checks, *how, receive)),
        Route(COMMANDS_PATH, PollCommands(checks, *how, say)),
    ]


def _arrange(node: Node, traits: SessionTraits) -> Callable[[Wire], OpenSession]:
    arrivals = SessionFactory(node, traits, _connection_id)
    return lambda wire: lambda transport: arrivals.open_session(transport, wire)


def _connection_id() -> str:
    """A random UUID. The secrets module's generator, because whoever guesses an id could be excluded by it."""
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def _api(app: App) -> ApiHttp | None:
    options = app.config.api
    methods = ApiMethods(app.node, app.cluster, options)
    return ApiHttp(methods, ApiKeys(options.keys), options) if options.enabled else None


def _routes(app: App, api: ApiHttp | None) -> list[BaseRoute]:
    routes: list[BaseRoute] = [
        Route("/metrics", app.metrics.endpoint),
        *app.health.routes(),
        *(Route(path, _upgrade_required) for path in app.websocket_paths),
        *_streams(app),
        *(Route(f"/client/{path.name}", _script(path)) for path in sorted(_BROWSER_CLIENT.glob("*.js"))),
    ]
    if api is not None:
        routes += [Route("/api", api), Mount("/api", api)]
    if app.config.server.demo:
        routes.append(Route("/", _page(_DEMO / "index.html")))
        routes.append(Mount("/demo", _Pages(directory=_DEMO)))
    return routes


async def _upgrade_required(request: Request) -> Response:
    """Somebody opened a WebSocket address in a browser."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    return PlainTextResponse("this address speaks WebSocket only\n", status_code=426, headers=headers)


def _page(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """One page, read at start-up. A coroutine, because Starlette runs plain functions in a thread."""
    text = path.read_text(encoding="utf-8")

    async def respond(request: Request) -> Response:
        return HTMLResponse(text, headers=_PAGE_HEADERS)

    return respond


def _script(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """One module of the browser client, read at start-up. Browsers ask each time, and hear that it is the same."""
    text = path.read_bytes()
    headers = {**_SCRIPT_HEADERS, "ETag": f'"{hashlib.sha256(text).hexdigest()[:32]}"'}

    async def respond(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(text, headers=headers, media_type="text/javascript")

    return respond


class _Pages(StaticFiles):
    """Static files with the headers of a careful site."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """What is not there is the visitor's mistake; a bare router would take the exception for a fault of ours."""
        try:
            return await super().get_response(path, scope)
        except HTTPException as refused:
            return PlainTextResponse(f"{refused.detail}\n", refused.status_code, refused.headers)

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]  # passed through as they came
        response.headers.update(_PAGE_HEADERS)
        return response
