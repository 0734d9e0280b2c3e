"""The port of protocols: the connection object that reads what a client sends, and how pushes become bytes.

* A **protocol connection** is one client's conversation in one protocol. It may keep state: parts of a message, ids,
  messages that the client has not acknowledged. It calls the operations of the session (`session.operations`), which
  take and return the types of `beaconfire.model`, and it encodes their results.
* A **codec** is one encoding of the pushes of a protocol.
* A **framing** belongs to the transport. It packs encoded messages into frames.
* A **wire** is a codec with a framing. Fan-out encodes a publication once per wire and shares the bytes between all
  sessions of this wire. A protocol that numbers each delivery gives every connection a wire of its own.

Codecs and wires do no I/O and never suspend. All methods are called on the thread of the event loop, often during
fan-out: they must not block. The commands of a protocol are its own: the session only queues them.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol, runtime_checkable

from msgspec import Raw

from beaconfire.base.errors import DisconnectCode
from beaconfire.model.pushes import Push


class ProtocolError(Exception):
    """The bytes of the client are not a message of this protocol. The text says what is wrong. The session must end
    (disconnect 3501).
    """


class Payload(NamedTuple):
    """One encoded message of the protocol. `binary` tells whether WebSocket sends it in a binary or a text frame."""

    data: bytes
    binary: bool = False


class Codec(Protocol):
    """One encoding of the pushes of one protocol.

    User data in messages is opaque: a codec passes on its bytes unchanged, or raises PayloadError if the encoding
    cannot express them, for example bytes that are not JSON in a JSON protocol.
    """

    @property
    def name(self) -> str:
        """The name in metrics and logs: `centrifuge-json`, `centrifuge-protobuf`, `plain`."""

    @property
    def separator(self) -> bytes | None:
        """The bytes between two messages in one frame. None if each message needs a frame of its own."""

    def encode_push(self, push: Push) -> Payload:
        """Encodes a push. Called once per wire for a publication, for all subscribers together. Raises PayloadError."""


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


class CommandOrder(Enum):
    """How a command that suspends is ordered among the commands of its session.

    `ALONE`: it starts when all commands before it have finished, except those beside, and later ones wait for it.
    `OVERLAPPING`: as `ALONE`, but commands of this order that follow each other do not wait for each other.
    `BESIDE`: as `ALONE`, but later commands do not wait for it.
    """

    ALONE = auto()
    OVERLAPPING = auto()
    BESIDE = auto()


class ProtocolConnection(Protocol):
    """One client's conversation, as its session calls it. No method raises or blocks.

    The first command of a client must become `Operations.connecting.connect`, also if the protocol has no message for
    that: until then all other operations end the session with 3501.

    `receive` passes the commands of a message to `Session.run_commands`. The session starts them in their order, and
    `order` tells which of them wait for each other.
    """

    def receive(self, data: bytes, binary: bool) -> None:
        """Handles one whole message of the transport. Not called after the end of the session.

        It must count what the client sends with `Session.count`, which may end the session, and a session that has
        ended must get no commands.

        `data` is a complete message; the text of a text message is valid UTF-8. `binary` is the kind of a WebSocket
        message. A message of the protocol may span several messages of the transport, and the other way round.
        """

    def execute(self, command: Any) -> Coroutine[Any, Any, None]:
        """Runs one of the commands that `receive` has passed to the session. Never raises an `Exception`.

        Failures become replies or the end of the session. The end of the session cancels a command that waits for a
        decision of a policy.
        """

    def never_suspends(self, command: Any) -> bool:
        """Whether `execute` runs this command to its end without suspending. Then no task is made for it."""

    def order(self, command: Any) -> CommandOrder:
        """Which commands this one waits for, and which wait for it."""

    def ping(self) -> None:
        """Sends a ping of the protocol. Called only for a session whose pings are messages of its protocol."""

    def on_ended(self, code: DisconnectCode) -> None:
        """The session has ended; this is the last call. Messages that are sent now still reach the client.

        The connection must drop what refers to the session, so that reference counting frees both: for example timers,
        and callbacks of its wire. Not called if the session ends while this object is made.
        """
