"""Building the configuration in Python, and reading it."""

from __future__ import annotations

import os

import beaconfire
from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.config import Config, ConfigError, load
from beaconfire.session.options import ClientOptions
from beaconfire.transports.options import ServerOptions

config = Config(
    server=ServerOptions(port=0, header_max_size=Size(8192)),
    client=ClientOptions(ping_interval=Seconds(10), allowed_origins=["http://localhost:*"]),
    namespaces={"chat": ChannelOptions(presence=True, history_size=100, history_ttl=Seconds(300))},
)
port: int = config.server.port
interval_s: float = config.client.ping_interval
history_size: int = config.namespaces["chat"].history_size
version: str = beaconfire.__version__

Config(server=ServerOptions(port="8000"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Config(serevr=ServerOptions())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Config(ServerOptions())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ServerOptions(handshake_timeout=10)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
config.server.port = 8080  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
major: int = beaconfire.__version__  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def read(path: str | None) -> Config:
    try:
        return load(path, os.environ, {"server.port": "0"})
    except ConfigError as error:
        for problem in error.problems:
            problem.key.upper()
        raise
    finally:
        load(path, os.environ, {"server.port": 0})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
