"""What a session says in one request, and where that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from beaconfire.base.errors import (
    CONNECTION_CLOSED,
    CONNECTION_EXPIRED,
    INVALID_TOKEN,
    SHUTDOWN,
    DisconnectCode,
)
from beaconfire.transports.polling.poll_transport import PollOutcome, PollTransport, disconnect_response
from beaconfire.transports.port import Transport


class ScriptedSession:
    """A receiver that has said one thing, has another one queued, and is given a third one when it ends."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.has_ended = False

    def on_data(self, data: bytes, binary: bool) -> None:
        self._transport.write(b"said\n")

    def on_control_frame(self, size: int) -> None: ...

    def on_transport_pong(self) -> None: ...

    def on_writable(self) -> None:
        self._transport.write(b"queued\n")

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        return None if self.has_ended else {"room": (2, "e")}

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self.has_ended = True
        self._transport.write(b"too late\n")


def gather(is_enough: Any, *, gone: bool = False, patience_s: float = 5.0) -> PollOutcome | None:
    async def receive() -> Any:
        if not gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def scenario() -> PollOutcome | None:
        return await PollTransport("poll", 1000).gather(ScriptedSession, receive, b"", 5.0, patience_s, is_enough)

    return asyncio.run(scenario())


def has_come(messages: Sequence[bytes]) -> bool:
    return b"said" in messages


def test_positions_are_those_of_what_is_gathered() -> None:
    """What is queued counts, what comes while the session ends does not: the next one recovers it."""
    assert gather(has_come) == PollOutcome((b"said", b"queued"), {"room": (2, "e")}, None)


def test_patience_ends() -> None:
    """Then what there is must do."""
    outcome = gather(lambda messages: False, patience_s=0.01)
    assert outcome is not None
    assert outcome.messages == (b"said", b"queued")


def test_nobody_waits_any_more() -> None:
    """A client that has gone gets no answer."""
    assert gather(lambda messages: False, gone=True) is None


def test_refusals() -> None:
    """The status says whether there is any use in asking again, and what to change."""
    statuses = {
        code: disconnect_response(code, "why", {}).status_code for code in (INVALID_TOKEN, CONNECTION_EXPIRED, SHUTDOWN)
    }
    assert statuses == {INVALID_TOKEN: 401, CONNECTION_EXPIRED: 401, SHUTDOWN: 503}
    assert disconnect_response(SHUTDOWN, "why", {}).headers["retry-after"] == "1"
    assert disconnect_response(SHUTDOWN, "why", {}).body == b'{"disconnect":{"code":3001,"reason":"why"}}'
