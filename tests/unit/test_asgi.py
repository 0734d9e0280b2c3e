"""Beaconfire as an ASGI application: start, stop, mounting, and what it leaves to its host."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Scope

from beaconfire.asgi import Application, create_app
from beaconfire.config import Config, ConfigError, load

CONFIG = load(None, {}, {"client.insecure": "true", "api.insecure": "true", "server.drain_rate": "0"})


class Socket:
    """A WebSocket client of an ASGI application in the same event loop."""

    def __init__(self, app: ASGIApp, path: str = "/connection/websocket", **scope: Any) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._to_app.put_nowait({"type": "websocket.connect"})
        full: Scope = {
            "type": "websocket",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "client": ("192.0.2.1", 1),
            "extensions": {"websocket.http.response": {}},
            **scope,
        }
        self.running = asyncio.ensure_future(app(full, self._to_app.get, self._from_app.put))

    async def receive(self) -> Message:
        async with asyncio.timeout(5):
            return await self._from_app.get()

    async def request(self, **command: Any) -> Any:
        self._to_app.put_nowait({"type": "websocket.receive", "text": json.dumps({"id": 1, **command})})
        return json.loads((await self.receive())["text"])

    async def close(self) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.running


async def get(app: ASGIApp, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


class Lifespan:
    """The lifespan protocol, as a server speaks it."""

    def __init__(self, app: ASGIApp) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self.running = asyncio.ensure_future(app({"type": "lifespan"}, self._to_app.get, self._from_app.put))

    async def step(self, name: str) -> Message:
        self._to_app.put_nowait({"type": f"lifespan.{name}"})
        return await self._from_app.get()


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    lifespan = Lifespan(app)
    assert await lifespan.step("startup") == {"type": "lifespan.startup.complete"}
    try:
        yield
    finally:
        assert await lifespan.step("shutdown") == {"type": "lifespan.shutdown.complete"}
        await lifespan.running


def scenario(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(run())


def test_the_end_of_the_lifespan_disconnects_all_clients_with_3001() -> None:
    """Afterwards every request is refused with 503, until the application is started again."""

    async def run() -> None:
        app = create_app(CONFIG)
        async with running(app):
            assert (await get(app, "/health/ready")).status_code == 200
            socket = Socket(app)
            assert (await socket.receive())["type"] == "websocket.accept"
            assert "connect" in await socket.request(connect={})
            stopping = asyncio.ensure_future(app.drain())
            closed = await socket.receive()
            assert (closed["type"], closed["code"]) == ("websocket.close", 3001)
            await socket.close()
            await stopping
            assert (await get(app, "/health/ready")).status_code == 503
        refused = Socket(app)
        assert (await refused.receive())["status"] == 503
        await refused.running
        assert (await get(app, "/health")).status_code == 503
        async with running(app):
            assert (await get(app, "/health/ready")).status_code == 200

    scenario(run)


def test_shutdown_waits_for_the_closing_handshakes() -> None:
    """The end of the lifespan itself drains: no call of `drain` is necessary."""

    async def run() -> None:
        app = create_app(CONFIG)
        lifespan = Lifespan(app)
        await lifespan.step("startup")
        socket = Socket(app)
        await socket.receive()
        await socket.request(connect={})
        stopping = asyncio.ensure_future(lifespan.step("shutdown"))
        assert (await socket.receive())["code"] == 3001
        assert not stopping.done()
        await socket.close()
        assert await stopping == {"type": "lifespan.shutdown.complete"}
        await lifespan.running

    scenario(run)


def test_without_a_lifespan_the_first_request_starts_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """One log line says what is missing, however many requests come at once."""

    async def run() -> None:
        app = create_app(CONFIG)
        sockets = [Socket(app) for _ in range(3)]
        for socket in sockets:
            assert (await socket.receive())["type"] == "websocket.accept"
            await socket.close()
        async with app.lifespan():
            pass

    scenario(run)
    assert sum("lifespan_missing" in record.message for record in caplog.records) == 1


def test_lifespan_before_the_first_request_logs_nothing_of_that_kind(caplog: pytest.LogCaptureFixture) -> None:
    """The usual case."""

    async def run() -> None:
        app = create_app(CONFIG)
        async with running(app):
            await get(app, "/health")

    scenario(run)
    assert not [record for record in caplog.records if "lifespan_missing" in record.message]


def test_failed_start_is_reported_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `lifespan.startup.failed`. A request that starts the server raises the same exception, and the next request
    tries again."""

    async def run() -> None:
        app = create_app(CONFIG)
        with monkeypatch.context() as patch:
            patch.setattr("beaconfire.server.app.App.start", fail)
            lifespan = Lifespan(app)
            assert await lifespan.step("startup") == {
                "type": "lifespan.startup.failed",
                "message": "OSError: no engine",
            }
            with pytest.raises(OSError, match="no engine"):
                await lifespan.running
            with pytest.raises(OSError, match="no engine"):
                await get(app, "/health")
        assert (await get(app, "/health")).status_code == 200
        async with app.lifespan():
            pass

    async def fail(self: object) -> None:
        raise OSError("no engine")

    scenario(run)


def test_application_is_mounted_with_its_lifespan() -> None:
    """`app.lifespan` is the lifespan of the host. Paths are below the prefix, for HTTP and for WebSockets."""

    async def run() -> None:
        realtime = create_app(CONFIG)
        host = Starlette(routes=[Mount("/realtime", realtime)], lifespan=realtime.lifespan)
        async with running(host):
            assert (await get(host, "/realtime/health/ready")).status_code == 200
            assert (await get(host, "/realtime/api/openapi.json")).status_code == 200
            assert (await get(host, "/health/ready")).status_code == 404
            assert 'path="/health/ready"' in (await get(host, "/realtime/metrics")).text
            socket = Socket(host, "/realtime/connection/websocket")
            assert (await socket.receive())["type"] == "websocket.accept"
            assert "connect" in await socket.request(connect={})
            await socket.close()

    scenario(run)


def test_unknown_websocket_path_is_refused_with_404() -> None:
    """As by `beaconfire serve`."""

    async def run() -> None:
        app = create_app(CONFIG)
        async with running(app):
            socket = Socket(app, "/nowhere")
            assert (await socket.receive())["status"] == 404
            await socket.running

    scenario(run)


def test_forwarded_addresses_of_trusted_proxies_are_used(caplog: pytest.LogCaptureFixture) -> None:
    """`server.trusted_proxies` works under any ASGI server."""
    caplog.set_level(logging.INFO, "beaconfire")
    config = load(None, {}, {"server.trusted_proxies": '["192.0.2.1"]', "api.insecure": "true"})

    async def run() -> None:
        app = create_app(config)
        async with (
            running(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app, client=("192.0.2.1", 5)), base_url="http://test"
            ) as client,
        ):
            await client.get("/", headers={"X-Forwarded-For": "203.0.113.9"})

    scenario(run)
    assert [record for record in caplog.records if "address=203.0.113.9" in record.message]


def test_another_event_loop_is_refused() -> None:
    """All state belongs to the event loop of the start. The error says what to do."""
    app = create_app(CONFIG)

    async def first() -> None:
        assert (await get(app, "/health")).status_code == 200

    async def second() -> None:
        with pytest.raises(RuntimeError, match="one application for each loop"):
            await get(app, "/health")

    asyncio.run(first())
    asyncio.run(second())


def test_nothing_of_the_process_is_changed() -> None:
    """Signals, garbage collection, file descriptors, structlog and the root logger belong to the host."""
    resource = pytest.importorskip("resource")

    def process() -> list[Any]:
        return [
            gc.get_threshold(),
            gc.get_freeze_count(),
            resource.getrlimit(resource.RLIMIT_NOFILE),
            [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)],
            list(logging.getLogger().handlers),
            logging.getLogger().level,
            structlog.is_configured(),
        ]

    async def run() -> None:
        before = process()
        app = create_app(CONFIG)
        async with running(app):
            await get(app, "/health")
            assert process() == before
        assert process() == before

    scenario(run)


def test_configuration_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As that of `beaconfire serve`: a file, and variables that win. All errors are reported together."""
    file = tmp_path / "beaconfire.toml"
    file.write_text('[client]\nping_interval = "7s"\npong_timeout = "3s"\n')
    monkeypatch.setenv("BEACONFIRE_CONFIG", str(file))
    monkeypatch.setenv("BEACONFIRE_CLIENT_PONG_TIMEOUT", "2s")
    client = create_app().config.client
    assert [float(client.ping_interval), float(client.pong_timeout)] == [7, 2]
    monkeypatch.setenv("BEACONFIRE_CLIENT_PONG_TIMEOUT", "nonsense")
    with pytest.raises(ConfigError, match="pong_timeout"):
        create_app()


def test_drain_before_the_start_does_nothing() -> None:
    """There are no sessions."""
    asyncio.run(Application(Config()).drain())
