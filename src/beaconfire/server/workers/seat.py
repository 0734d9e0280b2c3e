"""What a child process of the supervisor is told when it starts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

HUB: Final = "hub"
"""The name of the hub process. A worker process has the number of its slot as its name."""

SECRET_BYTES: Final = 32
"""The length of the random secret of one start of the server."""

State: TypeAlias = Literal["starting", "ready", "retiring"]


class Seat(Struct, frozen=True):
    """The place of one process among the processes of the server.

    `slot` is the number of the worker's slot, from 0, or None for the hub. `workers` is the number of slots. `folder`
    is the run directory, in which each process has its sockets. `channel` is the descriptor of the connection to the
    supervisor. The process loads the configuration from `config_file`, `overrides` and the environment.
    `listening` are the descriptors of the listening sockets of all slots: a worker accepts those of its own slot, and
    those of another slot while that slot has no worker.
    """

    name: str
    slot: int | None
    workers: int
    folder: str
    channel: int
    config_file: str | None = None
    overrides: dict[str, str] = {}
    listening: tuple[tuple[int, ...], ...] = ()

    @property
    def hub_socket(self) -> str:
        """The path of the Unix socket at which workers reach the engine."""
        return str(Path(self.folder) / "engine.sock")

    def random_secret(self) -> bytes:
        """What the supervisor has written to `secret_file`."""
        return secret_file(self.folder).read_bytes()

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()

    @staticmethod
    def decode(text: str) -> Seat:
        """Raises msgspec.DecodeError."""
        return msgspec.json.decode(text, type=Seat)

    def open_channel(self) -> socket.socket:
        """The connection to the supervisor. Call this once."""
        return socket.socket(fileno=self.channel)


def status_file(folder: str) -> Path:
    """The file in which the supervisor writes the status of all processes."""
    return Path(folder) / "status.json"


def secret_file(folder: str) -> Path:
    """The file with a random secret that all workers share."""
    return Path(folder) / "secret"


def figures_socket(folder: str, pid: int) -> str:
    """The path of the Unix socket at which a process serves its own metrics and readiness."""
    return str(Path(folder) / f"{pid}.sock")
