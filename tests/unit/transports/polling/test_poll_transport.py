"""The transport of a poll's session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from beaconfire.base.errors import (
    CONNECTION_CLOSED,
    CONNECTION_EXPIRED,
    INVALID_TOKEN,
    SHUTDOWN,
    DisconnectCode,
)
from beaconfire.model.handshake import Handshake
from beaconfire.model.results import ConnectionStart
from beaconfire.transports.polling.poll_transport import PollOutcome, PollTransport
from beaconfire.transports.polling.request_transport import disconnect_response
from beaconfire.transports.polling.wire import PollFrame
from beaconfire.transports.port import Transport
from tests.fakes.transport import HANDSHAKE

START = ConnectionStart("client1")


class ScriptedSession:
    """A receiver that connects and writes one message at once, writes one when writable, and one when it is closed."""

    def __init__(self, transport: Transport, handshake: Handshake, on_start: Callable[[ConnectionStart], None]) -> None:
        self._transport = transport
        self._on_start = on_start
        self.has_ended = False

    def on_data(self, data: bytes, binary: bool) -> None:
        self._on_start(START)
        self._transport.write([PollFrame([b"connected"])])

    def on_control_frame(self, size: int) -> None: ...

    def on_transport_pong(self) -> None: ...

    def on_writable(self) -> None:
        assert self._transport.writable
        self._transport.write([PollFrame([b"queued"])])

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        return None if self.has_ended else {"room": (2, "e")}

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self.has_ended = True
        self._transport.write([PollFrame([b"too late"])])


class SlowSession(ScriptedSession):
    """Never connects."""

    def on_data(self, data: bytes, binary: bool) -> None: ...

    def on_writable(self) -> None: ...


class BusySession(ScriptedSession):
    """Receives two publications in one frame, later than the connect message."""

    def on_data(self, data: bytes, binary: bool) -> None:
        super().on_data(data, binary)
        later = PollFrame([b"first", b"second"])
        asyncio.get_running_loop().call_soon(lambda: self._transport.write([later]))


class EndingSession(ScriptedSession):
    """Ends itself after it has connected."""

    def on_data(self, data: bytes, binary: bool) -> None:
        super().on_data(data, binary)
        self._transport.close(CONNECTION_EXPIRED, "why")
        self._transport.close(SHUTDOWN, "too late")


def gather(
    is_news: bool = False,
    session: type[ScriptedSession] = ScriptedSession,
    *,
    disconnected: bool = False,
    connect_timeout_s: float = 5.0,
    wait_s: float = 5.0,
    size_max: int = 1000,
) -> PollOutcome | None:
    async def receive() -> Any:
        if not disconnected:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def scenario() -> PollOutcome | None:
        poll_transport = PollTransport(size_max, lambda start: is_news and start is START)
        return await poll_transport.gather(session, HANDSHAKE, receive, b"", connect_timeout_s, wait_s)

    return asyncio.run(scenario())


@pytest.mark.timeout(4)
def test_news_ends_the_poll() -> None:
    """The positions cover the collected messages. Queued messages are included. Messages that are written at the end
    are not: the next session recovers them."""
    assert gather(is_news=True) == PollOutcome((b"connected", b"queued"), START, {"room": (2, "e")}, None)


@pytest.mark.timeout(4)
def test_messages_after_the_first_end_the_poll() -> None:
    """They are kept apart and in order."""
    outcome = gather(session=BusySession)
    assert outcome is not None
    assert outcome.messages == (b"connected", b"first", b"second", b"queued")


@pytest.mark.timeout(4)
def test_full_response_ends_the_poll() -> None:
    """The size is that of the messages. The response contains what is queued."""
    outcome = gather(size_max=len(b"connected"))
    assert outcome is not None
    assert outcome.messages == (b"connected", b"queued")


@pytest.mark.timeout(4)
def test_end_of_the_session_ends_the_poll() -> None:
    """The first code and reason count."""
    outcome = gather(session=EndingSession)
    assert outcome is not None
    assert outcome.end == (CONNECTION_EXPIRED, "why")


def test_wait_is_limited() -> None:
    """The outcome contains the messages so far."""
    outcome = gather(wait_s=0.01)
    assert outcome is not None
    assert outcome.messages == (b"connected", b"queued")


def test_connecting_is_limited() -> None:
    """The outcome of a session that has not connected has no start."""
    outcome = gather(session=SlowSession, connect_timeout_s=0.01)
    assert outcome is not None
    assert (outcome.start, outcome.messages) == (None, ())


def test_disconnected_client_has_no_outcome() -> None:
    """No response is made for a client that has disconnected."""
    assert gather(disconnected=True) is None


def test_status_of_disconnect_responses() -> None:
    """The status says whether the client may repeat the request, and what it must change."""
    statuses = {
        code: disconnect_response(code, "why", {}).status_code for code in (INVALID_TOKEN, CONNECTION_EXPIRED, SHUTDOWN)
    }
    assert statuses == {INVALID_TOKEN: 401, CONNECTION_EXPIRED: 401, SHUTDOWN: 503}
    assert disconnect_response(SHUTDOWN, "why", {}).headers["retry-after"] == "1"
    assert disconnect_response(SHUTDOWN, "why", {}).body == b'{"disconnect":{"code":3001,"reason":"why"}}'
