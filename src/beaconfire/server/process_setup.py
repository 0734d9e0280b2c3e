"""What every process of the server needs, whatever it serves: files, the log, the event loop, the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

import uvloop

from beaconfire.base.errors import EngineUnavailable, StorageUnusable
from beaconfire.config import Config, ConfigError, Problem, secret_values
from beaconfire.node.admission import raise_open_files_limit
from beaconfire.observe import logs
from beaconfire.server.sockets import keep_alive, limit_send_buffer
from beaconfire.transports.options import ServerOptions


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


@contextlib.contextmanager
def storage_problems(config: Config) -> Iterator[None]:
    """Raises ConfigError instead of StorageUnusable, and if the servers of an engine cannot be used."""
    try:
        yield
    except StorageUnusable as error:
        is_old = config.engine.type == "sqlite" and error.path == config.engine.path
        key = "engine.path" if is_old else "migration.path"
        raise ConfigError([Problem(key, error.path, error.problem)]) from error
    except EngineUnavailable as error:
        if config.engine.type != "redis":
            raise
        raise ConfigError([Problem("redis.url", "engine.type = 'redis'", error.detail)]) from error


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
