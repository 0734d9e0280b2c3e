"""uvicorn, started from Python, with a shutdown that drains Beaconfire first: the example of `docs/how-to/asgi.md`.

python -m tests.acceptance.draining_host PORT
"""

from __future__ import annotations

import socket
import sys

import uvicorn

from beaconfire.asgi import Application
from tests.acceptance import hosts


class DrainingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, realtime: Application) -> None:
        super().__init__(config)
        self._realtime = realtime

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._realtime.drain()
        await super().shutdown(sockets)


if __name__ == "__main__":
    application = hosts.plain()
    assert isinstance(application, Application)
    config = uvicorn.Config(application, port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=2)
    DrainingServer(config, application).run()
