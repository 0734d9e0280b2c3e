"""A well-behaved client on any line: it reads everything at once, answers pings, and remembers what it got."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.acceptance.deadlines import DEADLINE_S, wait_until
from tests.conformance.transports.lines import Line
from tests.conformance.transports.speech import EndedError, Message


class Seat:
    def __init__(self, line: Line, answers_pings: bool = True) -> None:
        self._line = line
        self._answers_pings = answers_pings
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Message]] = {}
        self._reads = asyncio.Event()
        self._reads.set()
        self._reading = asyncio.create_task(self._read())
        self._answers: set[asyncio.Task[None]] = set()
        self.connected: Message = {}
        """The connect result."""
        self.pushes: list[Message] = []
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The code with which the server ended the session."""

    async def ask(self, **command: Any) -> Message:
        """The reply to one command. Raises EndedError if the session ends before."""
        return (await self.ask_all([command]))[0]

    async def ask_all(self, commands: Sequence[Message]) -> list[Message]:
        """The same for several, sent together."""
        numbered = {next(self._ids): command for command in commands}
        futures = [self._replies.setdefault(number, asyncio.Future()) for number in numbered]
        await self._line.send([{"id": number, **command} for number, command in numbered.items()])
        async with asyncio.timeout(DEADLINE_S):
            return [await future for future in futures]

    def heard(self, channel: str) -> list[tuple[int, Any]]:
        """Offset and data of all publications so far."""
        return [
            (push["pub"].get("offset", 0), push["pub"]["data"])
            for push in self.pushes
            if push.get("channel") == channel and "pub" in push
        ]

    async def wait_heard(self, channel: str, count: int) -> list[tuple[int, Any]]:
        await wait_until(lambda: len(self.heard(channel)) >= count, f"{count} publications, got {self.heard(channel)}")
        return self.heard(channel)

    async def wait_push(self, fits: Callable[[Message], bool], what: str) -> None:
        await wait_until(lambda: any(map(fits, self.pushes)), f"{what}, got {self.pushes}")

    async def wait_ended(self) -> int:
        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.shield(self.ended)

    def stop_reading(self) -> None:
        """From now on what the server sends fills the buffers in between."""
        self._reads.clear()

    async def cut(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, *self._answers, return_exceptions=True)
        await self._line.cut()

    async def _read(self) -> None:
        try:
            async for message in self._line.messages():
                await self._reads.wait()
                self._on_message(message)
        except (EndedError, OSError) as error:
            code = error.code if isinstance(error, EndedError) else 1006
            self.ended.set_result(code)
            for future in self._replies.values():
                if not future.done():
                    future.set_exception(EndedError(code))
                    future.exception()  # seen: perhaps nobody waits for this one

    def _on_message(self, message: Message) -> None:
        if not message:
            if self._answers_pings:
                answer = asyncio.create_task(self._line.send([{}]))
                self._answers.add(answer)
                answer.add_done_callback(self._answers.discard)
        elif "id" in message:
            self._replies.pop(message["id"]).set_result(message)
        else:
            self.pushes.append(message["push"])


@asynccontextmanager
async def seated(line: Line, token: str, *channels: str, answers_pings: bool = True) -> AsyncIterator[Seat]:
    """Connected and subscribed; cut off in the end."""
    seat = Seat(line, answers_pings)
    try:
        reply = await seat.ask(connect={"token": token})
        assert "connect" in reply, reply
        seat.connected = reply["connect"]
        for channel in channels:
            reply = await seat.ask(subscribe={"channel": channel})
            assert "subscribe" in reply, reply
        yield seat
    finally:
        await seat.cut()
