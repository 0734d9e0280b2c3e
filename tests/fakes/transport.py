"""A wire and a transport without network, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from beaconfire.base.errors import DisconnectCode
from beaconfire.delivery.outbox import Writable
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Codec, Frame, Payload

HANDSHAKE = Handshake("test")
"""A handshake without headers."""


class LineWire:
    """A wire whose frames are payloads with a line break after each. `packed` counts the frames that were made."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.packed = 0

    def pack(self, payloads: Sequence[Payload]) -> bytes:
        self.packed += 1
        return b"".join(payload.data + b"\n" for payload in payloads)


class RecordingTransport:
    """A transport that keeps what is written to it, and fails the test if it is used after its end or while it is not
    writable."""

    name = "test"
    secret = ""
    direct: Any = None
    """The transport itself if frames may be sent to its socket directly."""

    def __init__(self) -> None:
        self.writable = True
        self.buffered_bytes = 0
        self.writes: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        """Code and reason of the disconnect."""
        self.pings = 0
        self.reading: list[str] = []
        """The calls of `pause_reading` and `resume_reading`."""
        self.when_closed: Callable[[], None] = lambda: None
        """Called by `close`, as a peer that closes its side at once."""

    def write(self, frames: Sequence[Frame]) -> None:
        assert frames, "a write without frames"
        data = b"".join(frames)  # type: ignore[arg-type]  # `LineWire` makes bytes
        assert self.writable, "written while the transport is not writable"
        assert self.closed is None, "written after the end"
        assert data, "an empty write"
        self.writes.append(data)

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("the socket of this transport takes whole frames")

    @staticmethod
    def send_all(transports: Sequence[Writable], frames: Sequence[bytes]) -> list[int]:
        """Implements `delivery.outbox.SendAll` for sockets that take whole frames."""
        for transport, data in zip(transports, frames, strict=True):
            assert isinstance(transport, RecordingTransport)
            assert transport.direct is transport, "sent to the socket of a transport that is not direct"
            transport.write([data])
        return list(map(len, frames))

    def messages(self) -> list[Any]:
        """Every line that was written, decoded from JSON."""
        return [json.loads(line) for line in b"".join(self.writes).splitlines()]

    def ping(self) -> None:
        self.pings += 1

    def close(self, code: DisconnectCode, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.closed = (code.code, reason)
        self.when_closed()

    def pause_reading(self) -> None:
        self.reading.append("pause")

    def resume_reading(self) -> None:
        self.reading.append("resume")
