"""Implementing the ports of `protocols.port`: a codec, its wire, and the connection object of a protocol."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from beaconfire.base.errors import BAD_PROTOCOL, CommandError, DisconnectCode
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush, Push
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.model.results import ConnectionStart, SubscriptionStart
from beaconfire.protocols.port import (
    Codec,
    CommandOrder,
    DeltaCodec,
    Frame,
    Payload,
    ProtocolConnection,
    ProtocolError,
    Wire,
)
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.session import Session


class LineCodec:
    """A codec of text lines."""

    name = "lines"
    separator = b"\n"

    def encode_push(self, push: Push) -> Payload:
        if isinstance(push, PublicationPush):
            return Payload(bytes(push.pub.data))
        return Payload(type(push).__name__.encode(), binary=False)


class LineWire:
    codec: Codec = LineCodec()

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        return b"\n".join(payload.data for payload in payloads)


class PatchCodec(LineCodec):
    def delta_text(self, data: Raw) -> Raw:
        return data

    def delta_data(self, text: bytes) -> Raw | None:
        return Raw(text)


class CodecOfText(LineCodec):
    def encode_push(self, push: Push) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return "push"


class LineConnection:
    """A protocol whose commands are lines: `join CHANNEL`, `say CHANNEL TEXT`, `leave CHANNEL`."""

    def __init__(self, session: Session, operations: Operations) -> None:
        self._session = session
        self._operations = operations

    def receive(self, data: bytes, binary: bool) -> None:
        self._session.count(1, len(data))
        if binary:
            self._session.end(BAD_PROTOCOL, "lines are text")
        elif not self._session.has_ended():
            self._session.run_commands(data.decode().splitlines())

    async def execute(self, command: str) -> None:
        await self._operations.execution.run(self._session, "line", "", self._run(command), command, self._reply_error)

    async def _run(self, command: str) -> None:
        operations, session = self._operations, self._session
        match command.split(" ", 2):
            case ["hello", token]:
                await operations.connecting.connect(session, ConnectionRequest(token=token), self._welcome)
            case ["join", channel]:
                await operations.subscribing.subscribe(session, SubscriptionRequest(channel), self._joined)
            case ["say", channel, text]:
                outcome = await operations.publishing.publish(session, channel, Raw(text.encode()))
                session.send(Payload(b"%d" % outcome.position.offset))
            case ["leave", channel]:
                operations.unsubscribe(session, channel)
            case _:
                raise ProtocolError("unknown command")

    def _welcome(self, start: ConnectionStart) -> None:
        self._session.send(Payload(start.client.encode()))

    def _joined(self, start: SubscriptionStart) -> None:
        missed: Sequence[Publication] = start.publications
        self._session.send(Payload(b"\n".join(bytes(publication.data) for publication in missed)))

    def _reply_error(self, ref: object, error: CommandError) -> None:
        self._session.send(Payload(f"{ref}: {error.code.message}".encode()))

    def never_suspends(self, command: str) -> bool:
        return False

    def order(self, command: str) -> CommandOrder:
        return CommandOrder.ALONE

    def ping(self) -> None:
        self._session.send(Payload(b""))

    def on_ended(self, code: DisconnectCode) -> None:
        pass


class WithAwaitedReceive(LineConnection):
    async def receive(self, data: bytes, binary: bool) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self._session.run_commands([data])


class WithSynchronousExecute(LineConnection):
    def execute(self, command: str) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return None


codec: Codec = LineCodec()
wire: Wire = LineWire()
patches: DeltaCodec = PatchCodec()
codec_without_wire: Wire = LineCodec()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
codec_of_text: Codec = CodecOfText()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
codec_without_patches: DeltaCodec = LineCodec()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def make_protocol(session: Session, operations: Operations) -> ProtocolConnection:
    if session.user == "":
        return WithAwaitedReceive(session, operations)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
    if session.user == "ann":
        return WithSynchronousExecute(session, operations)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
    return LineConnection(session, operations)


def rename(codec: Codec) -> bytes:
    codec.name = "renamed"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    return codec.encode_push(PublicationPush("news", Publication(Raw(b"1")))).data
