"""The port of protocols: how commands, results and pushes become bytes, and the other way round.

* A **codec** is one encoding of one protocol. It decodes the bytes of a frame to commands, and encodes results, errors
  and pushes to payloads.
* A **framing** belongs to the transport. It packs payloads into frames.
* A **wire** is a codec with a framing. Fan-out encodes a publication once per wire and shares the bytes between all
  sessions of this wire.

Codecs and wires have no state besides their settings, do no I/O and never suspend. One object serves all sessions. All
methods are called on the thread of the event loop, often during fan-out: they must not block.

The messages of a codec (`Command`, `Result`, `Push`) are those of the Centrifuge client protocol v2; see
`beaconfire.model`. A codec of another protocol translates between its own messages and these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from msgspec import Raw

from beaconfire.base.errors import CommandError
from beaconfire.model.pushes import Push
from beaconfire.model.requests import Command
from beaconfire.model.results import Result


class ProtocolError(Exception):
    """The bytes of the client are not a message of this protocol. The text says what is wrong. The session must end
    (disconnect 3501).
    """


class Payload(NamedTuple):
    """One encoded message of the protocol. `binary` tells whether WebSocket sends it in a binary or a text frame."""

    data: bytes
    binary: bool = False


class Codec(Protocol):
    """One encoding of one protocol.

    User data in messages is opaque: a codec passes on its bytes unchanged, or raises PayloadError if the encoding
    cannot express them, for example bytes that are not JSON in a JSON protocol.
    """

    @property
    def name(self) -> str:
        """The name in metrics and logs: `centrifuge-json`, `centrifuge-protobuf`, `plain`."""

    @property
    def separator(self) -> bytes | None:
        """The bytes between two messages in one frame. None if each message needs a frame of its own."""

    @property
    def app_pings(self) -> bool:
        """Whether pings are messages of the protocol. If not, the pings of the transport are used."""

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """Returns all commands of one frame, in the order of the frame; at least one.

        `data` is a complete frame; the text of a text frame is valid UTF-8. `binary` is the kind of the WebSocket
        frame. The result must not refer to the memory of `data`, because commands can live much longer than the
        frame. Raises ProtocolError, and nothing else, for bytes that are no message of the protocol. A codec can
        instead return an `InvalidRequest`, which is answered with an error.
        """

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """Encodes the successful reply to the command with this `ref`. Raises PayloadError."""

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """Encodes the error reply to the command with this `ref`. `detail` is the text that the client may see; empty
        if `debug_reasons` is off."""

    def encode_push(self, push: Push) -> Payload:
        """Encodes a push. Called once per wire for a publication, for all subscribers together. Raises PayloadError."""

    def encode_ping(self) -> Payload:
        """Encodes an application-level ping. Called only if `app_pings`."""


@runtime_checkable
class DeltaCodec(Protocol):
    """The additional methods of a codec whose clients can apply patches (delta compression, section 11)."""

    @property
    def name(self) -> str:
        """As `Codec.name`."""

    def delta_text(self, data: Raw) -> Raw:
        """Returns the bytes between which patches are made: the bytes that the client keeps of a publication with this
        data. Usually `data` itself. Raises PayloadError."""

    def delta_data(self, text: bytes) -> Raw | None:
        """Returns the data field of a publication for a full text or a patch, or None if the encoding cannot express
        the patch. Then the publication is sent in full."""


class Frame(Protocol):
    """One or more messages that a wire has packed for a transport. All sessions that get a frame share the object.

    Where a transport writes to a byte stream, frames are `bytes`, and frames of one wire may be concatenated. Another
    transport may need frames that keep their messages apart. A transport gets only frames of its session's wire.
    """

    def __len__(self) -> int:
        """The size in bytes. The limits of queues and the counts of written bytes use it."""


class Wire(Protocol):
    """A codec with a framing. Two sessions share encoded frames if and only if they share the wire object."""

    @property
    def codec(self) -> Codec:
        """The codec of this wire."""

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        """Packs one or more payloads into one frame, in order."""
