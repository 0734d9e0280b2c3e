"""Implementing `transports.port.Transport`, and using `Receiver`."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from beaconfire.base.errors import SHUTDOWN, DisconnectCode
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Frame
from beaconfire.transports.port import OpenSession, Receiver, Transport


class PipeTransport:
    """A transport that collects the frames."""

    name = "pipe"
    secret = ""
    writable = True
    direct: socket.socket | None = None

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    @property
    def buffered_bytes(self) -> int:
        return sum(map(len, self.frames))

    def write(self, frames: Sequence[Frame]) -> None:
        self.frames += frames

    def write_rest(self, data: bytes, sent: int) -> None:
        self.frames.append(data[sent:])

    def ping(self) -> None: ...

    def close(self, code: DisconnectCode, reason: str) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class AwaitedWrites(PipeTransport):
    async def write(self, frames: Sequence[Frame]) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self.frames += frames


class SingleFrames(PipeTransport):
    def write(self, frames: bytes) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self.frames.append(frames)


transport: Transport = PipeTransport()
socket_as_transport: Transport = socket.socket()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def serve(open_session: OpenSession) -> Receiver:
    handshake = Handshake("pipe", headers={"origin": "https://example.com"})
    receiver = open_session(PipeTransport(), handshake)
    open_session(PipeTransport())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    open_session(object(), handshake)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    receiver.on_data(b"{}", False)
    receiver.on_data("{}", False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    receiver.on_closed(SHUTDOWN)
    receiver.on_closed(3001)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return receiver
