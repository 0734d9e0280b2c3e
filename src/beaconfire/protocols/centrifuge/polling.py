"""The Centrifuge protocol of long polling: connections of sessions that last as long as one HTTP request.

The transport must know more than the bytes that it sends: whether the session has connected and with which positions,
and which reply belongs to which command. These connections tell it, so it reads no message of the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from beaconfire.base.errors import CommandError
from beaconfire.model.results import ConnectionStart
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec, CentrifugeConnection
from beaconfire.protocols.centrifuge.requests import Command
from beaconfire.protocols.centrifuge.results import Result
from beaconfire.protocols.centrifuge.unidirectional_connection import UnidirectionalConnection
from beaconfire.protocols.port import Payload
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.session import Session

OnStart: TypeAlias = Callable[[ConnectionStart], None]
"""Called once, when the session is connected, before the connect message is encoded and sent."""

OnReply: TypeAlias = Callable[[bytes, CommandError | None, object], None]
"""Called with each reply: the encoded message, the error if the command failed, and the ref of the command. For a
command that has no reply, it is called after the command has run, with an empty message and without a ref."""


class PollConnection(UnidirectionalConnection):
    """A poll: the client sends one connect request and receives pushes until the response is sent."""

    __slots__ = ("_on_start",)

    def __init__(self, session: Session, operations: Operations, codec: CentrifugeCodec, on_start: OnStart) -> None:
        super().__init__(session, operations, codec)
        self._on_start = on_start

    def on_connected(self, ref: object, start: ConnectionStart) -> None:
        self._on_start(start)
        super().on_connected(ref, start)

    def ping(self) -> None:
        """Sends nothing: a response is no open connection, and a ping in it would be no news."""


class CommandsConnection(CentrifugeConnection):
    """Commands of one request. Their replies do not go through the outbox, so they never wait behind pushes."""

    __slots__ = ("_on_reply",)

    def __init__(self, session: Session, operations: Operations, codec: CentrifugeCodec, on_reply: OnReply) -> None:
        """`on_reply` is not called after the end of the session."""
        super().__init__(session, operations, codec)
        self._on_reply = on_reply

    def execute(self, command: Command) -> Coroutine[Any, Any, None]:
        return super().execute(command) if command.ref is not None else self._execute_without_reply(command)

    async def _execute_without_reply(self, command: Command) -> None:
        await super().execute(command)
        if not self._session.has_ended():
            self._on_reply(b"", None, None)

    def reply(self, ref: object, result: Result) -> None:
        self._hand_over(self._codec.encode_reply(ref, result), None, ref)

    def reply_error(self, ref: object, error: CommandError) -> None:
        self._hand_over(self.encode_error(ref, error), error, ref)

    def ping(self) -> None:
        """Sends nothing: the client could not answer."""

    def _hand_over(self, message: Payload, error: CommandError | None, ref: object) -> None:
        session = self._session
        if not session.has_ended():
            session.count_sent(len(message.data))
            self._on_reply(message.data, error, ref)
