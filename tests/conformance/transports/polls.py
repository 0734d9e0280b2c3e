"""Long polling as a `Line`: requests that stand alone, made to look like one connection, as a client may do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx

from tests.acceptance.deadlines import DEADLINE_S
from tests.conformance.transports.speech import EndedError, Message

WAIT_S = 10


class PollLine:
    """Positions and credentials are kept here; the server keeps nothing between two requests."""

    def __init__(self, port: int) -> None:
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/connection", timeout=DEADLINE_S + WAIT_S)
        self._who: Message = {}
        self._subs: dict[str, Message] = {}
        self._said: asyncio.Queue[Message | EndedError] = asyncio.Queue()
        self._speaking = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    async def send(self, commands: Sequence[Message]) -> None:
        async with self._speaking:
            try:
                if self._listening is None:
                    await self._connect(commands[0])
                else:
                    await self._speak(commands)
            except EndedError as error:
                self._said.put_nowait(error)

    async def _connect(self, command: Message) -> None:
        self._who = command["connect"]
        answer = await self._ask("/poll", wait=0)
        first, *pushes = answer["messages"]
        self._said.put_nowait({"id": command["id"], "connect": first["connect"]})
        self._hear(pushes, answer["subs"])
        self._listen()

    async def _speak(self, commands: Sequence[Message]) -> None:
        bare = [{name: value for name, value in command.items() if name != "id"} for command in commands]
        answer = await self._ask("/commands", subs={channel: {} for channel in self._subs}, commands=bare)
        for command, reply in zip(commands, answer["replies"], strict=True):
            self._said.put_nowait({**reply, "id": command["id"]})
            if "subscribe" in reply:
                self._enter(command["subscribe"]["channel"], reply["subscribe"])
            elif "refresh" in reply:
                self._who = {**self._who, "token": command["refresh"]["token"]}
        self._listen()

    def _enter(self, channel: str, result: Message) -> None:
        offsets = [result.get("offset", 0), *(pub["offset"] for pub in result.get("publications", []))]
        self._subs[channel] = {"recover": True, "epoch": result["epoch"], "offset": max(offsets)}

    def _listen(self) -> None:
        """Asks from now on with what is known now."""
        if self._listening is not None:
            self._listening.cancel()
        self._listening = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        try:
            while True:
                answer = await self._ask("/poll", subs=self._subs, wait=WAIT_S)
                missed = [
                    {"channel": channel, "pub": pub}
                    for channel, sub in answer["messages"][0]["connect"].get("subs", {}).items()
                    for pub in sub.get("publications", [])
                ]
                self._hear(missed + answer["messages"][1:], answer["subs"])
        except EndedError as error:
            self._said.put_nowait(error)

    def _hear(self, pushes: Sequence[Message], subs: dict[str, Message]) -> None:
        self._subs = subs
        for push in pushes:
            self._said.put_nowait({"push": push})

    async def _ask(self, path: str, **request: Any) -> Message:
        try:
            response = await self._http.post(path, json={**self._who, **request})
            answer: Message = response.json()
        except (httpx.TransportError, ValueError):
            raise EndedError(1006) from None
        if response.status_code != 200:
            raise EndedError(answer.get("disconnect", {}).get("code", 1006))
        return answer

    async def messages(self) -> AsyncIterator[Message]:
        while not isinstance(said := await self._said.get(), EndedError):
            yield said
        raise said

    async def cut(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._http.aclose()
