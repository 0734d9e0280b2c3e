"""The demo on a server with compression, which Chromium offers by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.server_process import ServerProcess
from tests.browser.conftest import ROOT, OpenPage
from tests.browser.test_demo import publish

LOBBY = """(text) => new Promise((resolve, reject) => {
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws");
  socket.onopen = () => socket.send(text);
  socket.onmessage = ({ data }) => resolve([socket.extensions, data]);
  socket.onclose = ({ code }) => reject(code);
})"""
"""Sends a text to the lobby, and resolves with the negotiated extensions and the echoed message."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server as in the other tests, with compression."""
    overrides = {
        "client.allowed_origins": '["http://127.0.0.1:*"]',
        "websocket.compression": "true",
        "websocket.compression_min_size": "1",
        "plain.lobby": "true",
    }
    with ServerProcess(tmp_path, (ROOT / "demo.toml").read_text(), overrides) as process:
        yield process


def test_chromium_uses_compression(open_page: OpenPage, server: ServerProcess) -> None:
    """In both directions: short, long and non-ASCII messages, from users and backends."""
    ann, bob = open_page("Ann"), open_page("Bob")
    texts = ["x" * 1000, "看到了 👍 " * 100, "short"]
    ann.say(texts[0])
    bob.expect_messages(texts[0])
    bob.say(texts[1].strip())
    ann.expect_messages(texts[0], texts[1].strip())
    publish(server, "campfire", {"text": texts[2]})
    for page in (ann, bob):
        page.expect_messages(texts[0], texts[1].strip(), texts[2])
    for text in ("short", "ÄÖÜ " * 8_000):
        extensions, echo = ann.page.evaluate(LOBBY, text)
        assert "permessage-deflate" in extensions
        assert echo == text
