"""Nodes on one Redis server, each behind a proxy of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.deadlines import wait_until
from tests.acceptance.sdk.python.tcp_proxy import TcpProxy
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import http_request

CONFIG = """
[client]
insecure = true
[api]
keys = ["api_key"]
[channel]
presence = true
join_leave = true
force_push_join_leave = true
history_size = 1000
history_ttl = "1h"
force_recovery = true
[namespaces.live]
presence = true
[engine]
type = "redis"
"""


class Node(NamedTuple):
    """One Beaconfire server, and the proxy between it and Redis."""

    server: ServerProcess
    proxy: TcpProxy

    async def is_ready(self) -> bool:
        return (await http_request(self.server, "/health/ready"))[0] == 200

    async def wait_ready(self, ready: bool = True) -> None:
        async def condition() -> bool:
            return await self.is_ready() is ready

        await wait_until(condition, "the node is ready" if ready else "the node is not ready")


@asynccontextmanager
async def running_node(folder: Path, redis_port: int, config: str = CONFIG) -> AsyncIterator[Node]:
    """A node that has started."""
    proxy = TcpProxy(redis_port)
    await proxy.open()
    server = ServerProcess(folder, config, {"redis.url": f"redis://127.0.0.1:{proxy.port}"})
    try:
        await asyncio.to_thread(server.start)  # the proxy runs in this event loop
        await Node(server, proxy).wait_ready()
        yield Node(server, proxy)
    finally:
        server.__exit__(None, None, None)
        proxy.close()
