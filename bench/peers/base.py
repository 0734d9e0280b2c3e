"""What a peer is: a real-time server that is measured, and the dialect that its clients speak."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from bench.processes import CACHE, HeldPort, Program, wait_listening

INSTALLED = CACHE / "peers"
"""Where peers are installed, each in a folder of its name; nothing of them goes anywhere else."""

PING_INTERVAL_S = 3600
"""How often servers ping, if it can be set: the load side answers pings of WebSocket, not those of protocols above."""

CAPABILITIES = frozenset({"fanout", "rooms", "acks", "auth", "api", "recover", "protobuf"})
"""All that a peer can be measured at."""


class Dialect(Protocol):
    """What a client says to a peer, in payloads of WebSocket messages. Stateless."""

    @property
    def path(self) -> str:
        """Path and query of the WebSocket."""

    @property
    def binary(self) -> bool:
        """Whether the client's messages are binary ones."""

    @property
    def unprompted(self) -> int:
        """Messages that the server sends by itself right after the handshake."""

    @property
    def ack(self) -> bytes:
        """The bytes that an acknowledgement to a publisher is known by; empty if the protocol has none."""

    @property
    def echo(self) -> bool:
        """Whether a publisher that is in the channel gets its own message."""

    def greetings(self, user: str, channels: Sequence[str]) -> list[bytes]:
        """What makes a new connection `user`'s, in `channels`; each is answered by a message before the next."""

    def publish(self, channel: str, data: str) -> bytes:
        """A message that sends `data` (ASCII, no quotes, no backslash, no "+") to all in `channel`.

        Raises ValueError if the encoding needs a `~` besides those of `data`, which would look like a mark.
        """


class Running:
    """A started peer, which is ended with all its processes on leaving the context.

    Its parts are its programs by role: usually "server" alone.
    """

    def __init__(self) -> None:
        self._ports: list[HeldPort] = []
        self.port = self.hold_port()
        self.parts: dict[str, Program] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in reversed(self.parts.values()):
            program.__exit__(kind, error, trace)
        for port in self._ports:
            port.close()

    def hold_port(self) -> int:
        """A free port for one of its parts, which nothing else gets until the peer has ended."""
        self._ports.append(HeldPort())
        return self._ports[-1].number

    def launch(
        self, command: Sequence[str], *, part: str = "server", port: int = 0, env: Mapping[str, str] | None = None
    ) -> Self:
        """Starts a part and waits until it listens on `port`, 0 being the peer's.

        Raises RuntimeError if it does not; all parts are ended then.
        """
        program = self.parts[part] = Program(list(command), env=env, stdout=False)
        try:
            wait_listening(port or self.port, program.process)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def cpu_s(self) -> float:
        """CPU seconds used so far by all processes of all parts."""
        return sum(self.cpu_s_by_part().values())

    def resident_bytes(self) -> int:
        """Resident memory of all processes of all parts."""
        return sum(self.resident_bytes_by_part().values())

    def cpu_s_by_part(self) -> dict[str, float]:
        return {part: program.cpu_s() for part, program in self.parts.items()}

    def resident_bytes_by_part(self) -> dict[str, int]:
        return {part: program.resident_bytes() for part, program in self.parts.items()}


class Peer(Protocol):
    """A server to be measured, of a pinned version, configured as its own documentation advises for speed."""

    @property
    def name(self) -> str:
        """What samples call it."""

    @property
    def title(self) -> str:
        """What people call it, with versions."""

    @property
    def capabilities(self) -> frozenset[str]:
        """What it can be measured at, of CAPABILITIES."""

    @property
    def dialects(self) -> Mapping[str, Dialect]:
        """By codec: "json" and "protobuf", or "text"."""

    @property
    def configuration(self) -> str:
        """How it is configured and started, to be read: a file's text, and the command."""

    def install(self) -> None:
        """Installs it, unless it is, and says so. Raises RuntimeError that tells what is missing."""

    def start(self) -> Running:
        """Starts it on a free port of 127.0.0.1; it is ready when this returns. Raises RuntimeError if it is not."""


def pinned_version(file: Path, package: str) -> str:
    """The version of a package in a go.mod, package.json or requirements file. Raises ValueError without one."""
    found = re.search(rf'^\W*(?:require )?{re.escape(package)}"?(?:==|: "| v)([\w.]+)', file.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{file.name} does not pin {package}")
    return found[1]


def described(command: str, *files: Path) -> str:
    """A configuration to be read: the command, then each file under its name."""
    return "\n".join([f"$ {command}\n", *(f"--- {file.name}\n{file.read_text()}" for file in files)])
