"""The `eventsource` packages for Node receive all events from both Server-Sent Events endpoints."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.acceptance.server_process import API_KEY, ServerProcess

NODE = Path(__file__).with_name("node")
DEADLINE_S = 20.0
PACKAGES = ("eventsource-2", "eventsource-4")
"""Names in `node/package.json`: the most used version, and the newest one for Node 20."""

CONFIG = f"""
[client]
allow_anonymous = true
[api]
keys = ["{API_KEY}"]
[channel]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 100
history_ttl = "300s"
force_recovery = true
"""
REQUEST: dict[str, Any] = {"subs": {"news": {}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), CONFIG) as process:
        yield process


Events = queue.Queue[dict[str, Any]]


@contextmanager
def listening(package: str, url: str) -> Iterator[Events]:
    """The events that the package's EventSource receives, in their order."""
    if not (NODE / "node_modules" / package).exists():
        pytest.fail(f"{package} is missing: run `make services`", pytrace=False)
    events: Events = queue.Queue()
    process = subprocess.Popen(
        ["node", "events.js", package, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=NODE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines = process.stdout

    def read() -> None:
        for line in lines:
            events.put(json.loads(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield events
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize("path", ["/connection/sse", "/connection/uni_sse"])
@pytest.mark.parametrize("package", PACKAGES)
def test_event_sources_receive_every_event(server: ServerProcess, package: str, path: str) -> None:
    """Also the first one, which arrives together with the start of the stream."""
    connect = REQUEST if path.endswith("uni_sse") else {"id": 1, "connect": REQUEST}
    with listening(package, f"{server.http}{path}?cf_connect={quote(json.dumps(connect))}") as events:
        first = events.get(timeout=DEADLINE_S)["data"]
        epoch = first["connect"]["subs"]["news"]["epoch"]
        httpx.post(
            f"{server.http}/api/publish",
            json={"channel": "news", "data": {"path": path}},
            headers={"X-API-Key": API_KEY},
            timeout=DEADLINE_S,
        ).raise_for_status()
        second = events.get(timeout=DEADLINE_S)
        push = second["data"].get("push", second["data"])
        assert push["pub"]["data"] == {"path": path}
        if path.endswith("uni_sse"):
            assert json.loads(second["id"])["news"] == [push["pub"]["offset"], epoch]
