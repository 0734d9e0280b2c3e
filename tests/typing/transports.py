"""Implementing `transports.port.Transport`, and using `Receiver`."""

from __future__ import annotations

import socket

from beaconfire.base.errors import SHUTDOWN, DisconnectCode
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

    def write(self, data: Frame) -> None:
        self.frames.append(data)

    def write_rest(self, data: Frame, sent: int) -> None:
        self.frames.append(data[sent:])

    def ping(self) -> None: ...

    def close(self, code: DisconnectCode, reason: str) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class AwaitedWrites(PipeTransport):
    async def write(self, data: Frame) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self.frames.append(data)


transport: Transport = PipeTransport()
socket_as_transport: Transport = socket.socket()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def serve(open_session: OpenSession) -> Receiver:
    receiver = open_session(PipeTransport())
    open_session(object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    receiver.on_data(b"{}", False)
    receiver.on_data("{}", False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    receiver.on_closed(SHUTDOWN)
    receiver.on_closed(3001)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return receiver
