"""A client of the native protocol in JSON that follows the protocol: it reads at once and answers pings."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.acceptance.deadlines import DEADLINE_S
from tests.acceptance.raw_peer import CLOSE, TEXT, ClosedError, RawPeer, encode_frame

NORMAL_CLOSURE = 1000
"""Close code of a client that disconnects (RFC 6455 section 7.4.1)."""

ABNORMAL_CLOSURE = 1006
"""Close code where no close frame was received (RFC 6455 section 7.4.1)."""


class ReceivedPublication(NamedTuple):
    """A publication as a client received it. `received_at_s` is monotonic."""

    data: Any
    offset: int
    received_at_s: float


class JSONClient:
    """A client of the native protocol, which reads in a background task.

    `closed` resolves with the ClosedError of the connection's end. All pending requests then raise the same error.
    """

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer
        self.connect_reply: dict[str, Any] = {}
        self.publications: dict[str, list[ReceivedPublication]] = {}
        """Publications by channel, in the order of arrival."""
        self.pushes: list[dict[str, Any]] = []
        """All pushes except publications."""
        self.closed_at_s = 0.0
        """When the server's close frame was received; monotonic."""
        self.closed: asyncio.Future[ClosedError] = asyncio.get_running_loop().create_future()
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int, token: str = "", channels: Sequence[str] = ()) -> AsyncIterator[JSONClient]:
        """Connects, without a token as an anonymous client, and subscribes to the channels."""
        client = cls(await RawPeer.connect_websocket(port))
        try:
            reply = await client.request(connect={"token": token} if token else {})
            client.connect_reply = reply["connect"]
            for channel in channels:
                reply = await client.request(subscribe={"channel": channel})
                assert "subscribe" in reply, reply
            yield client
        finally:
            await client.disconnect()

    async def disconnect(self) -> None:
        """Closes the connection, with a close frame if the connection is still open."""
        if not self.closed.done():
            try:
                await self.peer.send(encode_frame(CLOSE, struct.pack("!H", NORMAL_CLOSURE)))
            except OSError:
                pass  # the server closed the connection first
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self.peer.close()

    @property
    def client_id(self) -> str:
        return str(self.connect_reply["client"])

    async def request(self, **command: Any) -> dict[str, Any]:
        """Sends a command and returns its reply. Raises ClosedError if the connection is closed before."""
        return (await self.request_all([command]))[0]

    async def request_all(self, commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Sends several commands in one message and returns their replies. Raises ClosedError as `request` does."""
        if self.closed.done():
            raise self.closed.result()
        numbered = {next(self._ids): command for command in commands}
        futures = [self._replies.setdefault(command_id, asyncio.Future()) for command_id in numbered]
        await self.peer.send_json(*({"id": command_id, **command} for command_id, command in numbered.items()))
        async with asyncio.timeout(DEADLINE_S):
            return [await future for future in futures]

    async def request_code(self, **command: Any) -> int:
        """Sends a command. Returns the code of the error reply or of the close frame, or 0 if the command succeeds."""
        try:
            reply = await self.request(**command)
        except ClosedError as closed:
            return closed.code
        return int(reply.get("error", {}).get("code", 0))

    async def publish(self, channel: str, data: Any) -> None:
        reply = await self.request(publish={"channel": channel, "data": data})
        assert "publish" in reply, reply

    def received_data(self, channel: str) -> list[Any]:
        """The data of all publications received so far in the channel."""
        return [publication.data for publication in self.publications.get(channel, [])]

    def received_clients(self, kind: str) -> list[str]:
        """The client ids of all pushes of this kind, `join` or `leave`, received so far."""
        return [push[kind]["info"]["client"] for push in self.pushes if kind in push]

    async def _read(self) -> None:
        try:
            while True:
                for message in await self.peer.read_messages():
                    await self._on_message(message)
        except ClosedError as error:
            self.closed_at_s = time.monotonic()
            self.closed.set_result(error)
            await self._answer_close(error.code)
        except OSError as error:
            self.closed.set_result(ClosedError(ABNORMAL_CLOSURE, str(error)))
        for future in self._replies.values():
            if not future.done():
                future.set_exception(self.closed.result())
                future.exception()  # marks the exception as retrieved: the test may not wait for this reply

    async def _answer_close(self, code: int) -> None:
        if code != ABNORMAL_CLOSURE:
            try:
                await self.peer.send(encode_frame(CLOSE, struct.pack("!H", code)))
            except OSError:
                pass  # the server did not wait for the answer
        self.peer.close()

    async def _on_message(self, message: dict[str, Any]) -> None:
        if not message:
            await self.peer.send(encode_frame(TEXT, b"{}"))
        elif "id" in message:
            future = self._replies.pop(message["id"])
            if not future.done():
                future.set_result(message)
        elif "pub" in message["push"]:
            push = message["push"]
            publication = ReceivedPublication(push["pub"]["data"], push["pub"].get("offset", 0), time.monotonic())
            self.publications.setdefault(push["channel"], []).append(publication)
        else:
            self.pushes.append(message["push"])
