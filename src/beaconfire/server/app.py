"""The composition root: makes every part of the server from the configuration, and gives each part what it uses."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Sequence

from msgspec import structs
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from beaconfire import __version__
from beaconfire.api.http import CALL_PATHS, ApiHttp
from beaconfire.api.methods import ApiMethods
from beaconfire.auth.keys import ApiKeys
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import Clock, SystemClock
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.config import Config
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.options import DURABILITIES, EMBEDDED
from beaconfire.engines.port import Engine
from beaconfire.engines.remote import remote_engine
from beaconfire.model.events import EventDispatcher, EventSink, NodeStatistics
from beaconfire.model.node import NodeIdentity
from beaconfire.node.admission import Admission
from beaconfire.node.node import STOP_TIMEOUT_S, Node, NodeOptions
from beaconfire.observe.health import Health
from beaconfire.observe.http import QUIET_PATHS, DirectPostObserver, RequestObserver, RequestRecorder
from beaconfire.observe.logs import LogSink
from beaconfire.observe.metrics import MetricsSink
from beaconfire.policy.chain import PolicyChain
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.policy.port import Policy
from beaconfire.server.endpoints import Endpoints
from beaconfire.server.engines import engine_problem, make_engine, with_engine
from beaconfire.server.pages import PAGE_PATHS, client_routes, demo_routes
from beaconfire.server.tickets import make_tickets
from beaconfire.server.ticks import Ticks, make_runtime
from beaconfire.server.workers.figures import Figures
from beaconfire.server.workers.seat import SECRET_BYTES, Seat
from beaconfire.transports.endpoint_table import ENDPOINTS
from beaconfire.transports.http import DirectPosts, HttpLimits
from beaconfire.transports.socket_writes import send_all
from beaconfire.transports.websocket import UpgradeDetector, WebSocketAcceptor

NEVER_EXPIRES = Seconds(100 * 365 * 86400)

_PATH_LABELS = (
    *PAGE_PATHS,
    "/api",
    "/api/",
    "/api/openapi.json",
    "/api/page.js",
    "/api/page.css",
    *QUIET_PATHS,
    *CALL_PATHS,
    *(row.path for row in ENDPOINTS if row.path),
)
"""The paths that metrics and logs show. All other paths are shown as one."""


class App:
    """A whole server without its process and listening socket. Make it inside a running event loop."""

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        logger: FilteringBoundLogger | None = None,
        policies: Sequence[Policy] = (),
        seat: Seat | None = None,
    ) -> None:
        """`logger` writes the log; by default it is the one that `observe.logs` has configured.

        `policies` are asked after the configured rules, in this order. `seat` is that of a worker process: its engine
        is at the hub, and its metrics and readiness are those of all processes.
        """
        self.config = config
        self._seat = seat
        self._policies = policies
        self.clock = clock or SystemClock()
        self.timers = Timers(self.clock)
        self._runtime = make_runtime(self.clock, self.timers)
        self.metrics = MetricsSink(config.namespaces)
        self.log = LogSink(logger, self.clock)
        self.events: EventSink = EventDispatcher(self.metrics, self.log)
        self.engine = self._make_engine()
        suffix = f"_{seat.name}" if seat is not None else ""
        self.identity = NodeIdentity(
            uid=str(uuid.uuid4()), name=f"{socket.gethostname()}_{config.server.port}{suffix}", version=__version__
        )
        self.namespaces = Namespaces(
            config.channel, config.namespaces, config.channel_names, float(config.engine.history_meta_ttl)
        )
        self.verifiers = _verifiers(config, self.clock, self.events)
        self.node = self._make_node()
        self.health = Health()
        self.health.add_check("engine", lambda: engine_problem(self.engine))
        self.health.add_check("revocations", self._revocations_problem)
        self.figures = Figures(seat, self.metrics, self.health) if seat is not None else None
        """The metrics and the readiness of all processes, or None if this is the only one."""
        self.admission = Admission(
            config.client, self._count_connections, self.clock, self.events, seat.workers if seat is not None else 1
        )
        self.endpoints = Endpoints(config, self.node, self.identity, self.admission.admit, self.timers, self.events)
        self.acceptor = WebSocketAcceptor(
            self.endpoints.websocket,
            config.websocket,
            config.client.allowed_origins,
            self.admission.admit,
            self.timers,
            self.events,
            self._runtime.schedule,
            config.server.trusted_proxies,
        )
        api = self._make_api()
        labels = (*_PATH_LABELS, *self.endpoints.websocket)
        recorder = RequestRecorder(self.metrics, labels, QUIET_PATHS + CALL_PATHS, logger)
        self.asgi: ASGIApp = RequestObserver(self._make_router(api), recorder, self.clock)
        self.http: Callable[..., asyncio.Protocol] = self._make_http(api, recorder)
        self.metrics.set_statistics_source(self._statistics)
        self._ticks = Ticks(self.clock, self.timers, self.events, self.engine, self.log.tick)

    async def start(self) -> None:
        """Starts the engine first. Readiness turns green when everything works."""
        await self.node.start()
        self._ticks.start()
        await self.node.work.revocation_stream.wait_until_known(float(self.config.engine.timeout))
        self.health.started()

    def begin_drain(self) -> None:
        """Refuses new connections. Open sessions are not affected yet."""
        self.admission.draining = True
        self.health.draining()

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stops in the reverse order of `start`, after all sessions have ended.

        Waits at most `timeout_s` seconds for work of the engine that is left.
        """
        await self.node.stop(timeout_s)
        for verifier in self.verifiers:
            await verifier.close()
        self._ticks.stop()
        self.log.flush()

    # Parts

    def _make_engine(self) -> Engine:
        options = self.config.engine
        if self._seat is None or options.type not in EMBEDDED:
            return make_engine(self.config, self._runtime, self.events)
        engine = remote_engine(self._seat.hub_socket, self._runtime, __version__, DURABILITIES[options.type])
        return guard_engine(engine, float(options.timeout), self.timers, self.events)

    def _make_node(self) -> Node:
        config, client = self.config, self.config.client
        access = Access(
            self.namespaces,
            client.insecure,
            client.user_personal_channel_namespace if client.user_personal_channel else None,
        )
        configured = ConfiguredPolicy(*self.verifiers, self.namespaces, access, client)
        policy = PolicyChain((configured, *self._policies)) if self._policies else configured
        return Node(
            NodeOptions(
                self.identity,
                client,
                detach_delay_s=float(config.engine.detach_delay),
                attach_timeout_s=float(config.engine.timeout),
            ),
            self.engine,
            self.namespaces,
            policy,
            self._runtime,
            self.events,
            send_all,
            make_tickets(config, policy.ticket_version, self._random_secret(), self.clock, self.events, os.urandom),
        )

    def _random_secret(self) -> bytes:
        """The secret of resume tickets if none is configured. All workers have the same."""
        return self._seat.random_secret() if self._seat is not None else os.urandom(SECRET_BYTES)

    def _make_api(self) -> ApiHttp | None:
        options, node = self.config.api, self.node
        if not options.enabled:
            return None
        methods = ApiMethods(
            node.channels,
            self.namespaces,
            node.cluster,
            node.turns,
            self.clock,
            self.events,
            options,
            node.operations.publishing,
            node.work.revocation_stream,
            "publish" in node.operations.suspending,
            node.operations.publishes_overlap,
            _leeway_s(self.config),
            self.engine.migration,
        )
        return ApiHttp(methods, ApiKeys(options.keys), options)

    def _make_router(self, api: ApiHttp | None) -> Router:
        router = Router(self._routes(api))
        not_found = router.default

        async def default(scope: Scope, receive: Receive, send: Send) -> None:
            handle = self.endpoints.not_found if scope["type"] == "websocket" else not_found
            await handle(scope, receive, send)

        router.default = default
        return router

    def _routes(self, api: ApiHttp | None) -> list[BaseRoute]:
        routes: list[BaseRoute] = [
            *(
                self.figures.routes()
                if self.figures is not None
                else [Route("/metrics", self.metrics.endpoint), *self.health.routes()]
            ),
            *self.endpoints.routes,
            *client_routes(),
        ]
        if api is not None:
            routes += [Route("/api", api), Mount("/api", api)]
        if self.config.server.demo:
            routes += demo_routes()
        return routes

    def _make_http(self, api: ApiHttp | None, recorder: RequestRecorder) -> Callable[..., asyncio.Protocol]:
        """The protocol factory of the listening socket: WebSocket upgrades, direct API calls, and all other HTTP."""
        server = self.config.server
        limits = HttpLimits(server, self.timers, self.events)
        http: Callable[..., asyncio.Protocol] = limits.protocol
        if api is not None:
            handle_post = DirectPostObserver(api.handle_post, recorder, self.clock)
            posts = DirectPosts(limits, CALL_PATHS, handle_post, api.never_suspends, server.trusted_proxies)
            http = posts.protocol
        return UpgradeDetector(self.acceptor, http, server, self.timers, self.events, self._runtime.schedule).protocol

    # Figures and time

    def _count_connections(self) -> int:
        return self.node.registry.connections

    def _revocations_problem(self) -> str | None:
        """The readiness check of revocations. Until they are known, no token is accepted."""
        return None if self.node.work.revocations.are_known else "this node does not know all revoked tokens yet"

    def _statistics(self) -> NodeStatistics:
        """The figures of the node and of its engine."""
        return with_engine(self.node.statistics(), self.engine)


def _verifiers(config: Config, clock: Clock, events: EventSink) -> tuple[JWTVerifier, JWTVerifier]:
    """The verifiers of connection tokens and of subscription tokens."""
    connection = JWTVerifier(_token_options(config, config.token), clock, events)
    if config.subscription_token is None:
        return connection, connection
    separate = _token_options(config, config.subscription_token)
    return connection, JWTVerifier(separate, clock, events, section="subscription_token")


def _token_options(config: Config, options: TokenOptions) -> TokenOptions:
    """In insecure mode, expired tokens are valid (section 6, rule 1 of the protocol reference)."""
    return structs.replace(options, leeway=NEVER_EXPIRES) if config.client.insecure else options


def _leeway_s(config: Config) -> float:
    """The larger leeway of connection tokens and subscription tokens."""
    subscription = config.subscription_token
    return float(max(config.token.leeway, subscription.leeway if subscription is not None else 0.0))
