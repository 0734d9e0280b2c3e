"""A client on any transport: reads everything at once, answers pings, and records what it receives."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.acceptance.deadlines import DEADLINE_S, wait_until
from tests.conformance.transports.client_transports import ClientTransport
from tests.conformance.transports.encodings import Message, SessionEndedError


class ScenarioClient:
    """One session. The client connects with `request(connect=…)`."""

    def __init__(self, transport: ClientTransport, answers_pings: bool = True) -> None:
        self._transport = transport
        self._answers_pings = answers_pings
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._reads = asyncio.Event()
        self._reads.set()
        self._reading = asyncio.create_task(self._read())
        self._pongs: set[asyncio.Task[None]] = set()
        self.connected: Message = {}
        """The connect result."""
        self.pushes: list[Message] = []
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The code with which the server ended the session."""

    async def request(self, **command: Any) -> Message:
        """Sends one command and returns its reply. Raises SessionEndedError if the session ends before."""
        return (await self.request_all([command]))[0]

    async def request_all(self, commands: Sequence[Message]) -> list[Message]:
        """As `request`, for several commands that are sent together."""
        if self.ended.done():
            raise SessionEndedError(self.ended.result())
        numbered = {next(self._ids): command for command in commands}
        futures = [self._replies.setdefault(number, asyncio.Future()) for number in numbered]
        await self._transport.send([{"id": number, **command} for number, command in numbered.items()])
        async with asyncio.timeout(DEADLINE_S):
            return [await future for future in futures]

    def publications(self, channel: str) -> list[tuple[int, Any]]:
        """Offset and data of all publications received so far."""
        return [
            (push["pub"].get("offset", 0), push["pub"]["data"])
            for push in self.pushes
            if push.get("channel") == channel and "pub" in push
        ]

    async def wait_publications(self, channel: str, count: int) -> list[tuple[int, Any]]:
        await wait_until(
            lambda: len(self.publications(channel)) >= count, f"{count} publications, got {self.publications(channel)}"
        )
        return self.publications(channel)

    async def wait_push(self, matches: Callable[[Message], bool], description: str) -> None:
        await wait_until(lambda: any(map(matches, self.pushes)), f"{description}, got {self.pushes}")

    async def wait_ended(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.shield(self.ended)

    def stop_reading(self) -> None:
        """From now on, the server's messages fill the buffers between server and client."""
        self._reads.clear()

    async def abort(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, *self._pongs, return_exceptions=True)
        await self._transport.abort()

    async def _read(self) -> None:
        try:
            async for message in self._transport.messages():
                await self._reads.wait()
                self._on_message(message)
        except (SessionEndedError, OSError) as error:
            code = error.code if isinstance(error, SessionEndedError) else 1006
            self.ended.set_result(code)
            for future in self._replies.values():
                if not future.done():
                    future.set_exception(SessionEndedError(code))
                    future.exception()  # marks it as retrieved: perhaps no caller awaits it

    def _on_message(self, message: Message) -> None:
        if not message:
            if self._answers_pings:
                pong = asyncio.create_task(self._transport.send([{}]))
                self._pongs.add(pong)
                pong.add_done_callback(self._pongs.discard)
        elif "id" in message:
            self._replies.pop(message["id"]).set_result(message)
        else:
            self.pushes.append(message["push"])


@asynccontextmanager
async def connected_client(
    transport: ClientTransport, token: str, *channels: str, answers_pings: bool = True
) -> AsyncIterator[ScenarioClient]:
    """A client that is connected and subscribed. At the end its connection is aborted."""
    client = ScenarioClient(transport, answers_pings)
    try:
        reply = await client.request(connect={"token": token})
        assert "connect" in reply, reply
        client.connected = reply["connect"]
        for channel in channels:
            reply = await client.request(subscribe={"channel": channel})
            assert "subscribe" in reply, reply
        yield client
    finally:
        await client.abort()
