"""The transport of a session that runs the commands of one request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from beaconfire.base.errors import (
    CONNECTION_CLOSED,
    CONNECTION_EXPIRED,
    PERMISSION_DENIED,
    CommandError,
    DisconnectCode,
)
from beaconfire.model.handshake import Handshake
from beaconfire.transports.polling.commands_transport import CommandsOutcome, CommandsTransport
from beaconfire.transports.polling.wire import PollFrame
from beaconfire.transports.port import Transport
from tests.fakes.transport import HANDSHAKE

OnReply = Callable[[bytes, CommandError | None, object], None]

DENIED = CommandError(PERMISSION_DENIED)


class ScriptedSession:
    """A receiver that replies to each command with its text, and also writes a push. It counts the commands."""

    def __init__(self, transport: Transport, handshake: Handshake, on_reply: OnReply) -> None:
        self.transport = transport
        self.on_reply = on_reply
        self.commands = 0
        self.is_closed = False

    def on_data(self, data: bytes, binary: bool) -> None:
        self.commands += 1
        assert self.transport.writable
        self.transport.write([PollFrame([b"push"])])
        self.run(data)

    def run(self, data: bytes) -> None:
        self.on_reply(data, None, self.commands)

    def on_control_frame(self, size: int) -> None: ...

    def on_transport_pong(self) -> None: ...

    def on_writable(self) -> None: ...

    def positions(self) -> Mapping[str, tuple[int, str]] | None: ...

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self.is_closed = True


class LaterSession(ScriptedSession):
    """Replies on the next turn of the event loop."""

    def run(self, data: bytes) -> None:
        asyncio.get_running_loop().call_soon(self.on_reply, data, None, self.commands)


class DenyingSession(ScriptedSession):
    """Replies to every command with an error."""

    def run(self, data: bytes) -> None:
        self.on_reply(data, DENIED, self.commands)


class DenyingCommandsSession(ScriptedSession):
    """Connects, and replies to every other command with an error."""

    def run(self, data: bytes) -> None:
        self.on_reply(data, None if self.commands == 1 else DENIED, self.commands)


class EndingSession(ScriptedSession):
    """Ends itself at the second command."""

    def run(self, data: bytes) -> None:
        if self.commands == 2:
            self.transport.close(CONNECTION_EXPIRED, "why")
        else:
            super().run(data)


class SilentSession(ScriptedSession):
    """Replies to connect only."""

    def run(self, data: bytes) -> None:
        if self.commands == 1:
            super().run(data)


def exchange(
    kind: type[ScriptedSession] = ScriptedSession,
    *,
    disconnected: bool = False,
    timeout_s: float = 5.0,
    size_max: int = 1000,
) -> tuple[CommandsOutcome | None, int]:
    """The outcome of connect, `a`, `b` and `c`, and how many of them the session got."""
    opened: list[ScriptedSession] = []

    async def receive() -> Any:
        if not disconnected:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    def open_session(transport: Transport, handshake: Handshake, on_reply: OnReply) -> ScriptedSession:
        opened.append(kind(transport, handshake, on_reply))
        return opened[0]

    async def scenario() -> CommandsOutcome | None:
        commands = [b"connect", b"a", b"b", b"c"]
        return await CommandsTransport(size_max).exchange(open_session, HANDSHAKE, receive, commands, timeout_s)

    outcome = asyncio.run(scenario())
    [session] = opened
    assert session.is_closed
    return outcome, session.commands


class WithoutReplySession(ScriptedSession):
    """Replies to all commands but the second one after connect, which has no reply."""

    def run(self, data: bytes) -> None:
        if self.commands == 3:
            self.on_reply(b"", None, None)
        else:
            super().run(data)


@pytest.mark.timeout(4)
def test_a_command_without_a_reply_does_not_delay_the_next_one() -> None:
    """It counts as run."""
    assert exchange(WithoutReplySession) == (CommandsOutcome((b"a", b"c"), 3, None, False, None), 4)


@pytest.mark.parametrize("kind", [ScriptedSession, LaterSession, DenyingCommandsSession])
def test_each_command_has_its_reply(kind: type[ScriptedSession]) -> None:
    """In order, without the reply to connect and without pushes. An error is a reply like any other."""
    assert exchange(kind) == (CommandsOutcome((b"a", b"b", b"c"), 3, None, False, None), 4)


def test_no_command_is_run_after_a_failed_connect() -> None:
    """The outcome has the error reply to connect."""
    assert exchange(DenyingSession) == (CommandsOutcome((), 0, b"connect", False, None), 1)


def test_no_command_is_run_after_a_full_response() -> None:
    """The reply to connect does not count."""
    assert exchange(size_max=2) == (CommandsOutcome((b"a", b"b"), 2, None, True, None), 3)


@pytest.mark.timeout(4)
def test_end_of_the_session_ends_the_exchange() -> None:
    """The outcome has code and reason."""
    assert exchange(EndingSession) == (CommandsOutcome((), 0, None, False, (CONNECTION_EXPIRED, "why")), 2)


def test_time_is_limited() -> None:
    """For all commands together."""
    assert exchange(SilentSession, timeout_s=0.01) == (CommandsOutcome((), 0, None, False, None), 2)


@pytest.mark.timeout(4)
def test_disconnected_client_has_no_outcome() -> None:
    """The command that waits for its reply is the last one that was run."""
    assert exchange(SilentSession, disconnected=True) == (None, 2)
