"""The server process: sockets, signals, start-up and drain around an `App`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn
import uvloop

from beaconfire import __version__
from beaconfire.base.errors import StorageUnusable
from beaconfire.config import Config, ConfigError, Problem, secret_values
from beaconfire.node.admission import raise_open_files_limit
from beaconfire.node.drain import Drain
from beaconfire.node.node import STOP_TIMEOUT_S
from beaconfire.observe import logs
from beaconfire.server import announcement
from beaconfire.server.app import App
from beaconfire.transports.http import LimitedHttpProtocol
from beaconfire.transports.options import ServerOptions

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""TCP keepalive probes, which find dead peers where there are no pings. Not every system has all three options."""

_BUFFER_MAX = 1 << 30
"""The largest SO_SNDBUF that fits an int. A system with a lower limit uses its own limit."""

LEAST_GRACE_S = 0.2
"""The time that requests in progress get even if the drain has taken all of `server.shutdown_timeout`."""


def run(config: Config) -> int:
    """Serves until SIGTERM or SIGINT has drained the node. Returns the process's exit code."""
    _fill_standard_descriptors()
    _check_files(config)
    raise_open_files_limit()
    logs.configure(config.log, secrets=secret_values(config))
    with asyncio.Runner(loop_factory=lambda: _Loop(config.server)) as runner:
        return runner.run(_serve(config))


class _Loop(uvloop.Loop):
    """A uvloop event loop with settings that uvicorn has no options for: the deadline of TLS handshakes, and options of
    the listening sockets.

    The socket options are set before the socket listens, so that every accepted connection has them.
    """

    def __init__(self, options: ServerOptions) -> None:
        super().__init__()
        self._options = options

    async def create_server(self, *args: Any, **options: Any) -> Any:
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = float(self._options.handshake_timeout)  # uvloop's default is a minute
        listener = await super().create_server(*args, **{**options, "start_serving": False})
        for sock in listener.sockets:  # type: ignore[attr-defined]  # uvloop's server has them
            keep_alive(sock)
            limit_send_buffer(sock, int(self._options.send_buffer_max))
        try:
            await listener.start_serving()
        except BaseException:  # the address is taken, for instance
            listener.close()
            raise
        return listener


def _fill_standard_descriptors() -> None:
    """Opens /dev/null for standard input, output and error if they are closed.

    Otherwise sockets would get their numbers: output would go to a client, and libuv aborts when it closes one of them.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    if sys.stderr is None:  # Python sets this for a closed descriptor
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open as long as the process runs


def _check_files(config: Config) -> None:
    """Raises ConfigError for TLS files that cannot be read. Later errors would not name the file."""
    problems = []
    for option in ("tls_cert", "tls_key"):
        path = getattr(config.server, option)
        try:
            if path:
                open(path, "rb").close()
        except OSError as error:
            problems.append(Problem(f"server.{option}", path, f"cannot be read: {error.strerror}"))
    if problems:
        raise ConfigError(problems)


async def _serve(config: Config) -> int:
    app = App(config)
    server = Server(app)
    try:
        await app.start()
    except StorageUnusable as error:
        raise ConfigError([Problem("engine.path", error.path, error.problem)]) from error
    try:
        await server.serve()
    except SystemExit:
        return 1  # uvicorn could not listen, and has logged the reason
    finally:
        await app.stop(server.time_left_s())
    return 0


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
            self._announce()

    async def shutdown(self, sockets: Any = None) -> None:
        """Like uvicorn's. Then connections with unread data are reset, so that the kernel keeps nothing of them."""
        await super().shutdown(sockets)
        self._app.acceptor.reset_unread()
        for connection in list(self.server_state.connections):
            if isinstance(connection, LimitedHttpProtocol):
                connection.reset_unread()

    def addresses(self) -> list[str]:
        """The base URLs of the listening sockets, with their real ports."""
        scheme = "https" if self.config.is_ssl else "http"
        addresses = []
        for listener in self.servers:
            for sock in listener.sockets:
                host, port = sock.getsockname()[:2]
                addresses.append(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
        return addresses

    def _announce(self) -> None:
        app, config = self._app, self._app.config
        fields = announcement.announcement(config, __version__, app.identity.uid, app.engine.name, self.addresses())
        log = logs.get_logger()
        if config.log.format == "auto" and sys.stderr.isatty() and log.is_enabled_for(logging.INFO):
            # For a person at a terminal: addresses to click, instead of one long line.
            lines = announcement.lines(fields, shutil.get_terminal_size().columns)
            sys.stderr.write("\n".join(["", *lines, "", ""]))
        else:
            log.info("server_started", **{field.name.replace(".", "_"): field.value for field in fields})
        for warning in announcement.warnings(config):
            log.warning("insecure", detail=warning)
        for note in announcement.notes(config):
            log.info("note", detail=note)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal starts the drain, the second skips its waits.

        The exit code is 0: unlike in uvicorn, the signal is not raised again afterwards.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._drain is None:
            app = self._app
            self._drain = Drain(
                app.node.registry, app.config.server, app.clock, app.events, app.begin_drain, self._stop_listening
            )
            self._draining = asyncio.get_running_loop().create_task(self._leave(self._drain))
        else:
            self._drain.hurry()
            self.force_exit = True

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

    def _stop_listening(self) -> None:
        for listener in self.servers:
            listener.close()


def keep_alive(listener: Any) -> None:
    """Enables TCP keepalive. Connections inherit it from the listening socket, which is cheaper than setting each."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def limit_send_buffer(listener: Any, size: int) -> None:
    """Bounds the kernel's send buffer of each connection, which inherits the option. 0 changes nothing.

    By default Linux lets the buffer grow to `net.ipv4.tcp_wmem`, 4 MB and more, for a peer that reads nothing.
    """
    if size:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(size, _BUFFER_MAX))


def tune_garbage_collector() -> None:
    """Makes full collections rare, and all others short.

    Full collections walk over every session, 50 ms for ten thousand sessions, and find nothing, because ended sessions
    have no reference cycles. The others walk over at most 1,000 or 5,000 new objects, 1 to 2 ms for 1,000: new
    objects are many while clients connect, or while commands wait for a slow engine.

    Objects that exist now live as long as the process, so they are excluded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(1_000, 4, 5_000)


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
