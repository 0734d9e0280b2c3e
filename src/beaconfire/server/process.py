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
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final

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
from beaconfire.server.sockets import base_url, keep_alive, limit_send_buffer
from beaconfire.transports.http import LimitedHttpProtocol
from beaconfire.transports.options import ServerOptions

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

LEAST_GRACE_S = 0.2
"""The time that requests in progress get even if the drain has taken all of `server.shutdown_timeout`."""


def run(config: Config) -> int:
    """Serves until SIGTERM or SIGINT has drained the node. Returns the process's exit code."""
    prepare(config)
    return run_in_loop(config, _serve(config))


def prepare(config: Config, process: str = "") -> None:
    """Prepares this process, which is a server from now on. `process` is its name in the log, if there are several.
    Raises ConfigError for files that cannot be read."""
    _fill_standard_descriptors()
    _check_files(config)
    raise_open_files_limit()
    logs.configure(config.log, secrets=secret_values(config), process=process)


def run_in_loop(config: Config, serving: Coroutine[Any, Any, int]) -> int:
    """Runs in an event loop of this server, and returns the exit code."""
    with asyncio.Runner(loop_factory=lambda: ServerLoop(config.server)) as runner:
        return runner.run(serving)


class ServerLoop(uvloop.Loop):
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
    with storage_problems(config):
        await app.start()
    return await serve(app, Server(app))


@contextlib.contextmanager
def storage_problems(config: Config) -> Iterator[None]:
    """Raises ConfigError instead of StorageUnusable."""
    try:
        yield
    except StorageUnusable as error:
        is_old = config.engine.type == "sqlite" and error.path == config.engine.path
        key = "engine.path" if is_old else "migration.path"
        raise ConfigError([Problem(key, error.path, error.problem)]) from error


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


def announce(config: Config, node_id: str, engine_name: str, addresses: Sequence[str]) -> None:
    """Writes to the log, or to the terminal of a person, what is running and where, and what is insecure."""
    fields = announcement.announcement(config, __version__, node_id, engine_name, addresses)
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
