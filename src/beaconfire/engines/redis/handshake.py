"""Opens connections: TCP or TLS, RESP3, log-in, database. Finds out what the server is."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec import Struct

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.engines.redis.address import Address, Host
from beaconfire.engines.redis.connection import Connection, Receiver, ServerError

OPEN_TIMEOUT_S: Final = 1.0
"""How long a new connection may take, with all steps."""

_UNSUITABLE: Final = frozenset({"WRONGPASS", "NOAUTH", "NOPERM", "ERR"})

CLIENT_NAME: Final = "beaconfire"


class Unsuitable(EngineUnavailable):
    """The server answers, and will not do before an operator changes something."""


class Server(Struct, frozen=True):
    """What a server says about itself. `mode` is standalone, cluster or sentinel."""

    name: str
    version: tuple[int, ...]
    mode: str
    role: str

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


async def open_connection(
    host: Host, address: Address, receiver: Receiver, runtime: Runtime, silence_s: float, *, to_sentinel: bool = False
) -> tuple[Connection, Server]:
    """Raises EngineUnavailable, without secrets: then nothing remains of the connection."""
    connection = Connection(receiver, runtime, silence_s)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: connection, host.name, host.port, ssl=address.ssl_context())
            return connection, await _introduce(connection, address, to_sentinel)
    except TimeoutError:
        problem = f"{host} has not answered within {OPEN_TIMEOUT_S:g} s"
    except OSError as error:
        problem = f"cannot connect to {host}: {error.strerror or error}"
    except ServerError as error:
        problem = f"{host}: {_explained(error)}"
        if error.code in _UNSUITABLE:
            connection.close(problem)
            raise Unsuitable(problem) from error
    except EngineUnavailable as error:
        problem = f"{host}: {error.detail}"
    except BaseException:
        connection.close("the attempt was cancelled")
        raise
    connection.close(problem)
    raise EngineUnavailable(problem)


async def _introduce(connection: Connection, address: Address, to_sentinel: bool) -> Server:
    username, password = address.username, address.password
    if to_sentinel:
        username, password = address.sentinel_username, address.sentinel_password
    login = ("AUTH", username or "default", password) if password else ()
    reply = await connection.call("HELLO", "3", *login, "SETNAME", CLIENT_NAME)
    if address.database and not to_sentinel:
        await connection.call("SELECT", address.database)
    said = {key.decode(): value for key, value in reply.items()}
    version = tuple(int(part) for part in said["version"].decode().split(".") if part.isdecimal())
    return Server(said["server"].decode(), version, said["mode"].decode(), said.get("role", b"").decode())


def _explained(error: ServerError) -> str:
    match error.code:
        case "WRONGPASS" | "NOAUTH":
            return f"{error}: check the user and the password in redis.url"
        case "NOPERM":
            return f"{error}: the user needs more rights, see the page about the engine redis"
        case "LOADING":
            return f"{error}: the server reads its data and will be ready soon"
        case _:
            return str(error)
