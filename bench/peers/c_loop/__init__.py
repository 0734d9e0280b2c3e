"""The physical limit: a bare C loop of send(), without channels and acknowledgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load.build import compile_sources
from bench.peers.base import PeerProtocol, Running, describe

SOURCE = Path(__file__).with_name("loop.c")


class LoopProtocol:
    """Every message gets a reply; a message with a mark is sent to all other connections."""

    path = "/"
    binary = False
    initial_messages = 0
    ack = b""
    echo = False

    def setup_messages(self, user: str, channels: Sequence[str]) -> list[bytes]:
        return [b"hello"]

    def publish(self, channel: str, data: str) -> bytes:
        return data.encode()


class CLoop:
    """One thread, one send() per delivery. The payload of a delivery is only the data."""

    name = "c-loop"
    title = "a C loop of send()"
    capabilities = frozenset({"fanout"})
    protocols: Mapping[str, PeerProtocol] = {"text": LoopProtocol()}

    @property
    def configuration(self) -> str:
        return describe("c-loop PORT", SOURCE)

    def install(self) -> None:
        compile_sources(self.name, [SOURCE])

    def start(self) -> Running:
        running = Running()
        return running.launch([str(compile_sources(self.name, [SOURCE])), str(running.port)])
