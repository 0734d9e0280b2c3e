"""The server process: sockets, signals, start-up and drain around an `App`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn

from beaconfire.config import Config
from beaconfire.node.drain import Drain
from beaconfire.node.node import STOP_TIMEOUT_S
from beaconfire.server.announce import announce
from beaconfire.server.app import App
from beaconfire.server.process_setup import prepare, run_in_loop, storage_problems, tune_garbage_collector
from beaconfire.server.sockets import base_url
from beaconfire.transports.http import LimitedHttpProtocol

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

LEAST_GRACE_S = 0.2
"""The time that requests in progress get even if the drain has taken all of `server.shutdown_timeout`."""


def run(config: Config) -> int:
    """Serves until SIGTERM or SIGINT has drained the node. Returns the process's exit code."""
    prepare(config)
    return run_in_loop(config, _serve(config))


async def _serve(config: Config) -> int:
    app = App(config)
    with storage_problems(config):
        await app.start()
    return await serve(app, Server(app))


async def serve(app: App, server: Server, sockets: list[socket.socket] | None = None) -> int:
    """Serves with an app that has started until a signal has drained the node, and stops the app. Returns the exit
    code. `sockets` are the listening sockets, None to open those of the configuration."""
    try:
        await server.serve(sockets)
    except SystemExit:
        return 1  # uvicorn could not listen, and has logged the reason
    finally:
        await app.stop(server.time_left_s())
    return 0


CLOSE: Final = (b"connection", b"close")
"""The response header that ends a connection after the response (RFC 9112, section 9.6)."""


class Server(uvicorn.Server):
    """uvicorn's server with our HTTP and WebSocket protocols, our announcement and our drain."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._drain: Drain | None = None
        self._draining: asyncio.Task[None] | None = None
        self._deadline_s: float | None = None
        super().__init__(_uvicorn_config(app))

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            tune_garbage_collector()
            await self.on_started()

    async def on_started(self) -> None:
        """Called when the server listens."""
        app = self._app
        announce(app.config, app.identity.uid, app.engine.name, self.addresses())

    async def shutdown(self, sockets: Any = None) -> None:
        """Like uvicorn's. Then connections with unread data are reset, so that the kernel keeps nothing of them."""
        await super().shutdown(sockets)
        self._app.acceptor.reset_unread()
        for connection in list(self.server_state.connections):
            if isinstance(connection, LimitedHttpProtocol):
                connection.reset_unread()

    def addresses(self) -> list[str]:
        """The base URLs of the listening sockets, with their real ports."""
        return [base_url(sock, tls=self.config.is_ssl) for listener in self.servers for sock in listener.sockets]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Calls `begin_stop` at each signal.

        The exit code is 0: unlike in uvicorn, the signal is not raised again afterwards.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.begin_stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def begin_stop(self) -> None:
        """The first call starts the drain, the second skips its waits."""
        if self._drain is None:
            self._start_drain(replaced=False)
        else:
            self._drain.hurry()
            self.force_exit = True

    def begin_handover(self) -> None:
        """Starts the drain if another process already serves the same address: nothing is refused. Idempotent."""
        if self._drain is None:
            # Clients that keep their HTTP connection open send their next request to the other process.
            self.config.encoded_headers.append(CLOSE)
            self.server_state.default_headers.append(CLOSE)
            self._start_drain(replaced=True)

    def _start_drain(self, *, replaced: bool) -> None:
        app = self._app
        self._drain = Drain(
            app.node.registry,
            app.config.server,
            app.clock,
            app.events,
            app.begin_drain,
            self.stop_listening,
            replaced=replaced,
        )
        self._draining = asyncio.get_running_loop().create_task(self._leave(self._drain))

    def make_protocol(self) -> asyncio.Protocol:
        """The protocol of a connection that was accepted by another listener than those of `serve`."""
        return self._app.http(config=self.config, server_state=self.server_state, app_state={})

    async def _leave(self, drain: Drain) -> None:
        clock = self._app.clock
        deadline_s = self._deadline_s = clock.now_s() + self._app.config.server.shutdown_timeout
        try:
            await drain.run()
        finally:
            # Requests in progress get the time that the drain has left. uvicorn accepts fractions of seconds as well.
            left_s = max(LEAST_GRACE_S, deadline_s - clock.now_s())
            self.config.timeout_graceful_shutdown = left_s  # type: ignore[assignment]
            self.should_exit = True

    def time_left_s(self) -> float:
        """What is left of `server.shutdown_timeout`, at least `STOP_TIMEOUT_S`: the engine must learn who has left."""
        if self._deadline_s is None:
            return STOP_TIMEOUT_S
        return max(STOP_TIMEOUT_S, self._deadline_s - self._app.clock.now_s())

    def stop_listening(self) -> None:
        """No connection is accepted any more."""
        for listener in self.servers:
            listener.close()


def _uvicorn_config(app: App) -> uvicorn.Config:
    options = app.config.server
    return uvicorn.Config(
        app.asgi,
        host=options.host,
        port=options.port,
        http=app.http,  # type: ignore[arg-type]  # any callable that makes a protocol
        ws=app.acceptor.upgrade,  # type: ignore[arg-type]  # likewise
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=options.backlog,
        timeout_keep_alive=int(options.keep_alive_timeout),
        ssl_certfile=options.tls_cert or None,
        ssl_keyfile=options.tls_key or None,
        proxy_headers=bool(options.trusted_proxies),
        forwarded_allow_ips=options.trusted_proxies,
    )
