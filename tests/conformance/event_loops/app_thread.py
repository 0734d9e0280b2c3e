"""A whole server on an event loop in a thread of its own, in the process of the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import uvicorn

from beaconfire.config import Config
from beaconfire.server.app import App
from tests.acceptance.deadlines import DEADLINE_S

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


class AppThread:
    """Serves until the end of the `with` block, on a free port."""

    def __init__(self, config: Config, loop_factory: LoopFactory) -> None:
        self._config = config
        self._loop = loop_factory()
        self._ready = threading.Event()
        self._stopping: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="server")
        self.port = 0

    def __enter__(self) -> AppThread:
        self._thread.start()
        assert self._ready.wait(DEADLINE_S), "the server did not start"
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        app = App(self._config)
        await app.start()
        server = uvicorn.Server(
            uvicorn.Config(
                app.asgi,
                http=app.http,  # type: ignore[arg-type]  # any callable that makes a protocol
                ws=app.acceptor.upgrade,  # type: ignore[arg-type]  # likewise
                port=0,
                lifespan="off",
                log_config=None,
            )
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        while len(app.node.registry.open) + len(app.node.registry.closing):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)  # the clients have closed their connections, which are then freed in this loop
        server.should_exit = server.force_exit = True
        await serving
        await app.stop()
