"""What the server sends: numbered messages that are kept until the client acknowledges them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Raw

from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import Push
from beaconfire.protocols.port import Codec, Frame, Payload, Wire
from tests.conformance.sessions.parcel.messages import encode, framed

UNACKNOWLEDGED_BYTES_MAX: Final = 20_000


class ParcelCodec:
    """Implements `protocols.port.Codec`. A push is an event with the fields of the push."""

    name: Final = "parcel"
    separator: Final = b""

    def encode_push(self, push: Push) -> Payload:
        fields: dict[str, Any] = {name: _plain(getattr(push, name)) for name in push.__struct_fields__}
        return Payload(encode({"event": type(push).__name__, "args": fields}), binary=True)


def _plain(value: object) -> object:
    if isinstance(value, Publication):
        return publication_fields(value)
    if isinstance(value, ClientInfo):
        return info_fields(value)
    return bytes(value) if isinstance(value, Raw) else value


def publication_fields(publication: Publication) -> dict[str, Any]:
    return {"data": bytes(publication.data), "offset": publication.offset}


def info_fields(info: ClientInfo) -> dict[str, Any]:
    return {"user": info.user, "client": info.client, "info": bytes(info.conn_info)}


class NumberedWire:
    """The wire of one connection: numbers each message, and keeps it until the client acknowledges it.

    It outlives a transport: `moved` continues the numbers with the framing of another transport.
    """

    __slots__ = ("_bytes", "_framing", "_unacknowledged", "last", "when_full")

    def __init__(self, framing: Wire) -> None:
        self._framing = framing
        self._unacknowledged: deque[tuple[int, Payload]] = deque()
        self._bytes = 0
        self.last = 0
        """The number of the last message."""
        self.when_full: Callable[[], None] | None = None
        """Called once, during fan-out, when more than `UNACKNOWLEDGED_BYTES_MAX` wait for an acknowledgement."""

    @property
    def codec(self) -> Codec:
        return self._framing.codec

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        return self._framing.pack([self._number(payload) for payload in payloads])

    def _number(self, payload: Payload) -> Payload:
        self.last += 1
        numbered = Payload(framed(encode({"n": self.last, "body": Raw(payload.data)})), binary=True)
        self._unacknowledged.append((self.last, numbered))
        self._bytes += len(numbered.data)
        if self._bytes > UNACKNOWLEDGED_BYTES_MAX and self.when_full is not None:
            self.when_full()
            self.when_full = None
        return numbered

    def acknowledge(self, number: int) -> bool:
        """The client has every message up to this one. False if that cannot be, or if it was forgotten already."""
        first = self._unacknowledged[0][0] if self._unacknowledged else self.last + 1
        if not first - 1 <= number <= self.last:
            return False
        while self._unacknowledged and self._unacknowledged[0][0] <= number:
            self._bytes -= len(self._unacknowledged.popleft()[1].data)
        return True

    def moved(self, framing: Wire) -> NumberedWire:
        """The wire of the same connection on another transport."""
        wire = NumberedWire(framing)
        wire._unacknowledged, wire._bytes, wire.last = self._unacknowledged, self._bytes, self.last
        wire.when_full = self.when_full
        return wire

    def frames(self) -> list[Frame]:
        """What the client has not acknowledged, in order."""
        return [self._framing.pack([payload]) for _, payload in self._unacknowledged]
