"""The physical limit: a bare C loop of send(), which knows no rooms and acknowledges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load.build import compile_sources
from bench.peers.base import Dialect, Running, described

SOURCE = Path(__file__).with_name("loop.c")


class LoopDialect:
    """Whatever is said is answered, and what holds a mark goes to all others."""

    path = "/"
    binary = False
    unprompted = 0
    ack = b""
    echo = False

    def greetings(self, user: str, channels: Sequence[str]) -> list[bytes]:
        return [b"hello"]

    def publish(self, channel: str, data: str) -> bytes:
        return data.encode()


class CLoop:
    """One thread, one send() per delivery. A delivery's payload is the data alone."""

    name = "c-loop"
    title = "a C loop of send()"
    capabilities = frozenset({"fanout"})
    dialects: Mapping[str, Dialect] = {"text": LoopDialect()}

    @property
    def configuration(self) -> str:
        return described("c-loop PORT", SOURCE)

    def install(self) -> None:
        compile_sources(self.name, [SOURCE])

    def start(self) -> Running:
        running = Running()
        return running.launch([str(compile_sources(self.name, [SOURCE])), str(running.port)])
