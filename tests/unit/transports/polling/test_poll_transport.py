"""The transport of a session that lasts for one request."""

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
from beaconfire.model.handshake import Handshake
from beaconfire.transports.polling.poll_transport import PollOutcome, PollTransport, disconnect_response
from beaconfire.transports.port import Transport
from tests.fakes.transport import HANDSHAKE


class ScriptedSession:
    """A receiver that writes one message at once, one when writable, and one when it is closed."""

    def __init__(self, transport: Transport, handshake: Handshake) -> None:
        self._transport = transport
        self.has_ended = False

    def on_data(self, data: bytes, binary: bool) -> None:
        self._transport.write([b"written\n"])

    def on_control_frame(self, size: int) -> None: ...

    def on_transport_pong(self) -> None: ...

    def on_writable(self) -> None:
        self._transport.write([b"queued\n"])

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        return None if self.has_ended else {"room": (2, "e")}

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self.has_ended = True
        self._transport.write([b"too late\n"])


def gather(is_enough: Any, *, disconnected: bool = False, wait_s: float = 5.0) -> PollOutcome | None:
    async def receive() -> Any:
        if not disconnected:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def scenario() -> PollOutcome | None:
        poll_transport = PollTransport("poll", 1000)
        return await poll_transport.gather(ScriptedSession, HANDSHAKE, receive, b"", 5.0, wait_s, is_enough)

    return asyncio.run(scenario())


def is_written(messages: Sequence[bytes]) -> bool:
    return b"written" in messages


def test_positions_cover_the_collected_messages() -> None:
    """Queued messages are included. Messages written at the end are not: the next session recovers them."""
    assert gather(is_written) == PollOutcome((b"written", b"queued"), {"room": (2, "e")}, None)


def test_wait_is_limited() -> None:
    """The outcome contains the messages so far."""
    outcome = gather(lambda messages: False, wait_s=0.01)
    assert outcome is not None
    assert outcome.messages == (b"written", b"queued")


def test_disconnected_client_has_no_outcome() -> None:
    """No response is made for a client that has disconnected."""
    assert gather(lambda messages: False, disconnected=True) is None


def test_status_of_disconnect_responses() -> None:
    """The status says whether the client may repeat the request, and what it must change."""
    statuses = {
        code: disconnect_response(code, "why", {}).status_code for code in (INVALID_TOKEN, CONNECTION_EXPIRED, SHUTDOWN)
    }
    assert statuses == {INVALID_TOKEN: 401, CONNECTION_EXPIRED: 401, SHUTDOWN: 503}
    assert disconnect_response(SHUTDOWN, "why", {}).headers["retry-after"] == "1"
    assert disconnect_response(SHUTDOWN, "why", {}).body == b'{"disconnect":{"code":3001,"reason":"why"}}'
