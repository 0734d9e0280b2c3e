"""A subscriber that reconnects with its position, and accepts no gap."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.acceptance.raw_peer import ClosedError, RawPeer

RECONNECT_S = 0.02


class Watcher:
    """Receives one channel until it is cancelled.

    `run` raises AssertionError if a publication is missing or comes twice, or the server says that it cannot recover.
    """

    def __init__(self, channel: str) -> None:
        self.received: list[tuple[int, Any]] = []
        """All publications as (offset, data)."""
        self.subscribed = 0
        """How often the client has subscribed."""
        self.channel = channel
        self._epoch = ""

    async def run(self, port: int) -> None:
        while True:
            try:
                peer = await RawPeer.connect_websocket(port)
            except (OSError, EOFError):
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                await self._receive(peer)
            except (OSError, ClosedError):
                await asyncio.sleep(RECONNECT_S)
            finally:
                peer.close()

    async def _receive(self, peer: RawPeer) -> None:
        subscribe: dict[str, Any] = {"channel": self.channel}
        if self._epoch:
            subscribe |= {"recover": True, "epoch": self._epoch, "offset": len(self.received)}
        await peer.send_json({"id": 1, "connect": {}}, {"id": 2, "subscribe": subscribe})
        while True:
            for message in await peer.read_messages():
                if not message:
                    await peer.send_json({})
                elif message.get("id") == 2:
                    self._on_subscribed(message)
                elif "push" in message:
                    assert "pub" in message["push"], message
                    self._on_publication(message["push"]["pub"])

    def _on_subscribed(self, message: dict[str, Any]) -> None:
        reply = message["subscribe"]
        assert not self._epoch or reply.get("recovered"), reply
        self.subscribed += 1
        self._epoch = reply["epoch"]
        for publication in reply.get("publications", []):
            self._on_publication(publication)

    def _on_publication(self, publication: dict[str, Any]) -> None:
        assert publication["offset"] == len(self.received) + 1
        self.received.append((publication["offset"], publication["data"]))
