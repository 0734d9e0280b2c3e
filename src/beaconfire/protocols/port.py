"""What a wire protocol must offer, and how its messages become bytes on a transport.

A *codec* turns bytes into commands and results or pushes into payloads; it is stateless and shared by every session
that speaks it. A *framing* belongs to the transport and packs payloads into frames. The pair is a *wire*: the key by
which fan-out encodes once, however many sessions listen. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

from msgspec import Raw

from beaconfire.base.errors import CommandError
from beaconfire.model.pushes import Push
from beaconfire.model.requests import Command
from beaconfire.model.results import Result


class ProtocolError(Exception):
    """The peer's bytes are no message of this protocol. The text names what was wrong; the session must end."""


class Payload(NamedTuple):
    """One encoded protocol message. `binary` says which kind of WebSocket frame it wants."""

    data: bytes
    binary: bool = False


class Codec(Protocol):
    """One encoding of one protocol."""

    @property
    def name(self) -> str:
        """As in metrics and logs: `centrifuge-json`, `centrifuge-protobuf`, `plain`."""

    @property
    def separator(self) -> bytes | None:
        """What may stand between messages that share a frame; None if each message needs a frame of its own."""

    @property
    def app_pings(self) -> bool:
        """Whether pings are messages of the protocol. If not, the transport's own pings are used."""

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """All commands of one frame, in order. Raises ProtocolError when the frame holds none or garbage."""

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """The one answer to the command with this `ref`. Raises PayloadError if the data cannot be expressed."""

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """The failed answer. `detail` is empty unless the client may see it."""

    def encode_push(self, push: Push) -> Payload:
        """A message nobody asked for. Raises PayloadError if the data cannot be expressed (not JSON for JSON)."""

    def encode_ping(self) -> Payload:
        """An application-level ping; called only if `app_pings`."""


@runtime_checkable
class DeltaCodec(Protocol):
    """What a codec offers besides if its clients can put publications together from patches."""

    @property
    def name(self) -> str: ...

    def delta_text(self, data: Raw) -> Raw:
        """The bytes patches are made between: those that the client keeps of a publication. Usually `data` itself.
        Raises PayloadError if the data cannot be expressed."""

    def delta_data(self, text: bytes) -> Raw | None:
        """Such bytes, or a patch, as the data of a publication; None for a patch that cannot be expressed."""


Frame: TypeAlias = bytes
"""Bytes ready for a transport, complete, shared by all sessions they go to. Frames of one wire may be concatenated."""


class Wire(Protocol):
    """A codec on a framing. Two sessions share frames if and only if they share this object."""

    @property
    def codec(self) -> Codec: ...

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        """One frame with all payloads in order; at least one is given."""
