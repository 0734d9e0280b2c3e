"""The port of a peer: a real-time server that is measured, and the protocol of its clients."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Protocol, Self

from bench.processes import CACHE, HeldPort, Program, wait_listening

INSTALLED = CACHE / "peers"
"""Peers are installed here, each in a folder with its name, and nowhere else."""

PING_INTERVAL_S = 3600
"""The ping interval of servers that have one: the load side answers WebSocket pings only, not pings of a protocol."""

CAPABILITIES = frozenset({"fanout", "rooms", "acks", "auth", "api", "recover", "protobuf"})
"""Everything that scenarios may require of a peer."""


class PeerProtocol(Protocol):
    """The client side of a peer's protocol: payloads of WebSocket messages. Stateless."""

    @property
    def path(self) -> str:
        """Path and query of the WebSocket endpoint."""

    @property
    def binary(self) -> bool:
        """Whether the client sends binary messages."""

    @property
    def initial_messages(self) -> int:
        """The number of messages that the server sends directly after the handshake."""

    @property
    def ack(self) -> bytes:
        """Bytes that every acknowledgement of a publish and no other message contains. Empty: no acknowledgements."""

    @property
    def echo(self) -> bool:
        """Whether a publisher that is subscribed receives its own messages."""

    def setup_messages(self, user: str, channels: Sequence[str]) -> list[bytes]:
        """Messages that connect `user` and subscribe to `channels`. Each is sent after the reply to the one before."""

    def publish(self, channel: str, data: str) -> bytes:
        """A message that publishes `data` (ASCII without quotes, backslashes and "+") to `channel`.

        Raises ValueError if the encoded message contains a `~` that is not in `data`: it would look like a mark.
        """


class Running:
    """A started peer. All its processes are ended with the `with` block.

    `parts` are its programs by role: usually only "server".
    """

    def __init__(self) -> None:
        self._ports: list[HeldPort] = []
        self._folders: list[TemporaryDirectory[str]] = []
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
        for folder in self._folders:
            folder.cleanup()

    def hold_port(self) -> int:
        """A free port for one of the parts, reserved until the peer ends."""
        self._ports.append(HeldPort())
        return self._ports[-1].number

    def hold_folder(self) -> Path:
        """A new folder for temporary files, removed when the peer ends."""
        self._folders.append(TemporaryDirectory(prefix="bench-"))
        return self.folders[-1]

    @property
    def folders(self) -> list[Path]:
        return [Path(folder.name) for folder in self._folders]

    def launch(
        self, command: Sequence[str], *, part: str = "server", port: int = 0, env: Mapping[str, str] | None = None
    ) -> Self:
        """Starts a part and waits until it listens on `port` (0: the peer's port).

        Raises RuntimeError if it does not listen; all parts are ended then.
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
    """A server of a pinned version, configured for speed as its documentation recommends."""

    @property
    def name(self) -> str:
        """Its name in samples."""

    @property
    def title(self) -> str:
        """Its title in reports, with versions."""

    @property
    def capabilities(self) -> frozenset[str]:
        """The CAPABILITIES that it has."""

    @property
    def protocols(self) -> Mapping[str, PeerProtocol]:
        """By codec: "json" and "protobuf", or "text". The first one is a text protocol."""

    @property
    def configuration(self) -> str:
        """Its configuration for the report: the text of its files, and the command that starts it."""

    def install(self) -> None:
        """Installs the peer if it is not installed. Raises RuntimeError that names what is missing."""

    def start(self) -> Running:
        """Starts the peer on a free port of 127.0.0.1 and waits until it listens. Raises RuntimeError if it fails."""


def pinned_version(file: Path, package: str) -> str:
    """The version of a package in a go.mod, package.json or requirements file. Raises ValueError without one."""
    found = re.search(rf'^\W*(?:require )?{re.escape(package)}"?(?:==|: "| v)([\w.]+)', file.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{file.name} does not pin {package}")
    return found[1]


def describe(command: str, *files: Path) -> str:
    """The text of a configuration: the command, then each file with its name."""
    return "\n".join([f"$ {command}\n", *(f"--- {file.name}\n{file.read_text()}" for file in files)])
