"""Beaconfire as an ASGI application, to run under any ASGI server or inside another application.

    uvicorn beaconfire.asgi:create_app --factory

The configuration is that of `beaconfire serve`: the file that BEACONFIRE_CONFIG names, and BEACONFIRE_ environment
variables. Nothing of the process is changed: signals, the event loop, the garbage collector, limits of file
descriptors and the logging belong to the host.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from msgspec import structs
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from beaconfire import __version__
from beaconfire.base.units import Seconds
from beaconfire.config import Config, load, secret_values
from beaconfire.node.drain import Drain
from beaconfire.observe import logs
from beaconfire.policy.port import Policy
from beaconfire.server import announcement
from beaconfire.server.app import App
from beaconfire.transports.asgi import refuse_websocket
from beaconfire.transports.port import ErrorResponse

_STOPPED: Final = ErrorResponse(503, "draining", "this node has stopped: try again")


def create_app(config: Config | None = None, policies: Sequence[Policy] = ()) -> Application:
    """Makes the ASGI application. Without `config` the environment is read, which may raise ConfigError.

    `policies` decide about clients after the configured rules: see `policy.port`.
    """
    return Application(load(None, os.environ, {}) if config is None else config, policies)


class Application:
    """One server as an ASGI application. It lives in one event loop at a time.

    The server starts at the start of the lifespan and drains at its end: all sessions end with code 3001. A host that
    mounts the application passes `lifespan` to its own lifespan. If no lifespan starts the server, the first request
    does; then nothing drains it.
    """

    def __init__(self, config: Config, policies: Sequence[Policy] = ()) -> None:
        self.config = config
        self._policies = policies
        self._starting: asyncio.Task[_RunningServer] | None = None
        """The task that starts the server, or has started it. None before the start."""
        self._is_stopped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif self._is_stopped:
            await _refuse(scope, receive, send)
        else:
            server = await self._started(late=True)
            await server.asgi(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, host: object = None) -> AsyncIterator[None]:
        """Starts the server, and drains and stops it at the end. May be the `lifespan` of a Starlette application,
        which passes itself as `host`. Raises RuntimeError if the server runs already in another event loop."""
        self._is_stopped = False
        await self._started()
        try:
            yield
        finally:
            await self._stop()

    async def drain(self) -> None:
        """Refuses new connections, turns readiness red, and ends all sessions with code 3001 at
        `server.drain_rate`.

        For hosts that learn of a shutdown before their ASGI server does. Returns when every session has ended, or after
        `server.shutdown_timeout`. The server API still works afterwards, until the end of the lifespan.
        """
        if self._starting is not None:
            await (await self._started()).drain()

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        """The lifespan protocol of ASGI, as the server's end of it sees the whole application."""
        await receive()
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            kind = "shutdown" if self._is_stopped else "startup"
            await send({"type": f"lifespan.{kind}.failed", "message": f"{type(error).__name__}: {error}"})
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _started(self, late: bool = False) -> _RunningServer:
        """The running server. The first call starts it, and `late` says that a request is that call.

        Raises what the start raises; then the next call tries again.
        """
        loop = asyncio.get_running_loop()
        starting = self._starting
        if starting is None:
            starting = self._starting = loop.create_task(_start(self.config, self._policies, late))
        elif starting.get_loop() is not loop:
            raise RuntimeError("this application runs in another event loop: create one application for each loop")
        if starting.done() and not starting.cancelled() and starting.exception() is None:
            return starting.result()
        try:
            return await asyncio.shield(starting)
        finally:
            if self._starting is starting and starting.done() and (starting.cancelled() or starting.exception()):
                self._starting = None

    async def _stop(self) -> None:
        self._is_stopped = True
        starting, self._starting = self._starting, None
        if starting is not None:
            server = await starting
            await server.drain()
            await server.app.stop()


class _RunningServer:
    """A started server, with the log of its application."""

    def __init__(self, config: Config, policies: Sequence[Policy]) -> None:
        self.log: FilteringBoundLogger = logs.host_logger(config.log, secret_values(config))
        self.app = App(config, logger=self.log, policies=policies)
        proxies = config.server.trusted_proxies
        self.asgi: ASGIApp = self.app.asgi
        if proxies:
            self.asgi = ProxyHeadersMiddleware(self.app.asgi, list(proxies))  # type: ignore[arg-type, assignment]  # the same types under other names

    def announce(self, late: bool) -> None:
        config = self.app.config
        # The host listens, so `server.host` says nothing about who can connect.
        local = structs.replace(config, server=structs.replace(config.server, host="127.0.0.1"))
        fields = announcement.announcement(config, __version__, self.app.identity.uid, self.app.engine.name, ())
        self.log.info("server_started", **{field.name.replace(".", "_"): field.value for field in fields})
        for warning in announcement.warnings(local):
            self.log.warning("insecure", detail=warning)
        for note in announcement.notes(config):
            self.log.info("note", detail=note)
        if late:
            self.log.warning(
                "lifespan_missing",
                detail="The first request has started the server, because the host did not run its lifespan: at "
                "shutdown, clients will not be told to reconnect elsewhere. Pass `app.lifespan` to the host.",
            )

    async def drain(self) -> None:
        """The host has stopped listening, or will do so: there is no `server.drain_delay`."""
        app = self.app
        options = structs.replace(app.config.server, drain_delay=Seconds(0))
        await Drain(app.node.registry, options, app.clock, app.events, app.begin_drain, _host_listens).run()


async def _start(config: Config, policies: Sequence[Policy], late: bool) -> _RunningServer:
    server = _RunningServer(config, policies)
    await server.app.start()
    server.announce(late)
    return server


def _host_listens() -> None:
    """Listening is the affair of the host."""


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """The response of a server that has stopped."""
    if scope["type"] == "websocket":
        await receive()
        await refuse_websocket(scope, send, _STOPPED)
    else:
        await PlainTextResponse(f"{_STOPPED.text}\n", _STOPPED.status)(scope, receive, send)
