"""Finds the master of a group of servers: asks the sentinels that watch the group."""

from __future__ import annotations

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.engines.redis.address import Address, Host
from beaconfire.engines.redis.connection import Nobody, ServerError
from beaconfire.engines.redis.handshake import Unsuitable, open_connection
from beaconfire.engines.redis.link import SILENCE_S


class Sentinels:
    """The sentinels of `redis.url`. One that has answered is asked first the next time."""

    def __init__(self, address: Address, runtime: Runtime) -> None:
        self._address = address
        self._hosts = list(address.hosts)
        self._runtime = runtime

    async def locate(self) -> Host:
        """The master. Raises EngineUnavailable, with the problem of each sentinel."""
        problems = []
        for host in list(self._hosts):
            try:
                found = await self._ask(host)
            except EngineUnavailable as error:
                problems.append(error.detail)
                continue
            self._hosts.remove(host)
            self._hosts.insert(0, host)
            return found
        raise EngineUnavailable("no sentinel knows the master: " + "; ".join(problems))

    async def _ask(self, host: Host) -> Host:
        connection, server = await open_connection(
            host, self._address, Nobody(), self._runtime, SILENCE_S, to_sentinel=True
        )
        try:
            if server.mode != "sentinel":
                raise Unsuitable(f"{host} is no sentinel: use redis:// or redis+cluster:// in redis.url")
            name = self._address.master_name
            reply = await connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        except ServerError as error:
            raise EngineUnavailable(f"{host}: {error}") from error
        finally:
            connection.close("answered")
        if reply is None:
            raise Unsuitable(f"{host} does not watch a master with the name {name!r}")
        return Host(reply[0].decode(), int(reply[1]))
