"""A transport whose socket often takes only the beginning of a frame."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from beaconfire.base.errors import DisconnectCode
from beaconfire.delivery.outbox import Writable
from beaconfire.protocols.port import Frame
from tests.simulation.broken_guarantee import BrokenGuarantee


class PartialWriteTransport:
    """Decodes the written lines into `inbox`, in order. The client reads them when the simulation says so."""

    name = "simulation"
    secret = ""
    buffered_bytes = 0

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._line_start = b""
        self.writable = True
        self.inbox: deque[dict[str, Any]] = deque()
        self.disconnect_code: int | None = None
        self.is_closed = False

    @property
    def direct(self) -> Any:
        return self if self.writable and self._rng.random() < 0.7 else None

    def write(self, frames: Sequence[Frame]) -> None:
        self._take(b"".join(frames))  # type: ignore[arg-type]  # `LineWire` makes bytes

    def _take(self, data: bytes) -> None:
        if self.disconnect_code is not None:
            raise BrokenGuarantee(f"written after the end: {data!r}")
        if self.is_closed:
            return
        *lines, self._line_start = (self._line_start + data).split(b"\n")
        try:
            self.inbox.extend(json.loads(line) for line in lines)
        except ValueError:
            raise BrokenGuarantee(f"frames are cut or mixed: {lines}") from None

    def write_rest(self, data: bytes, sent: int) -> None:
        self._take(data[sent:])

    @staticmethod
    def send_all(transports: Sequence[Writable], frames: Sequence[bytes]) -> list[int]:
        taken = []
        for transport, frame in zip(transports, frames, strict=True):
            assert isinstance(transport, PartialWriteTransport)
            takes_all = transport._rng.random() < 0.8
            taken.append(len(frame) if takes_all else transport._rng.randrange(len(frame)))
            transport._take(frame[: taken[-1]])
        return taken

    def ping(self) -> None:
        raise AssertionError("the Centrifuge protocol has its own pings")

    def close(self, code: DisconnectCode, reason: str) -> None:
        self.disconnect_code = code.code

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass
