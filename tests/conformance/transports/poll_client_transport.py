"""Long polling as a `ClientTransport`: independent requests, combined to one connection as an SDK may do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx

from tests.acceptance.deadlines import DEADLINE_S
from tests.conformance.transports.encodings import Message, SessionEndedError
from tests.conformance.transports.server_address import Address, base_url

WAIT_S = 10


class PollClientTransport:
    """Keeps positions and credentials. The server keeps nothing between two requests."""

    def __init__(self, server: Address) -> None:
        self._http = httpx.AsyncClient(base_url=f"{base_url(server)}/connection", timeout=DEADLINE_S + WAIT_S)
        self._connect_request: Message = {}
        self._subs: dict[str, Message] = {}
        self._messages: asyncio.Queue[Message | SessionEndedError] = asyncio.Queue()
        self._sending = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None

    async def send(self, commands: Sequence[Message]) -> None:
        async with self._sending:
            try:
                if self._polling is None:
                    await self._connect(commands[0])
                else:
                    await self._send_commands(commands)
            except SessionEndedError as error:
                self._messages.put_nowait(error)

    async def _connect(self, command: Message) -> None:
        self._connect_request = command["connect"]
        result = await self._post("/poll", wait=0)
        first, *pushes = result["messages"]
        self._messages.put_nowait({"id": command["id"], "connect": first["connect"]})
        self._add_pushes(pushes, result["subs"])
        self._start_polling()

    async def _send_commands(self, commands: Sequence[Message]) -> None:
        bare = [{name: value for name, value in command.items() if name != "id"} for command in commands]
        result = await self._post("/commands", subs={channel: {} for channel in self._subs}, commands=bare)
        for command, reply in zip(commands, result["replies"], strict=True):
            self._messages.put_nowait({**reply, "id": command["id"]})
            if "subscribe" in reply:
                self._set_position(command["subscribe"]["channel"], reply["subscribe"])
            elif "refresh" in reply:
                self._connect_request = {**self._connect_request, "token": command["refresh"]["token"]}
        self._start_polling()

    def _set_position(self, channel: str, result: Message) -> None:
        offsets = [result.get("offset", 0), *(pub["offset"] for pub in result.get("publications", []))]
        self._subs[channel] = {"recover": True, "epoch": result["epoch"], "offset": max(offsets)}

    def _start_polling(self) -> None:
        """Restarts polling with the current positions and credentials."""
        if self._polling is not None:
            self._polling.cancel()
        self._polling = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        try:
            while True:
                result = await self._post("/poll", subs=self._subs, wait=WAIT_S)
                missed = [
                    {"channel": channel, "pub": pub}
                    for channel, sub in result["messages"][0]["connect"].get("subs", {}).items()
                    for pub in sub.get("publications", [])
                ]
                self._add_pushes(missed + result["messages"][1:], result["subs"])
        except SessionEndedError as error:
            self._messages.put_nowait(error)

    def _add_pushes(self, pushes: Sequence[Message], subs: dict[str, Message]) -> None:
        self._subs = subs
        for push in pushes:
            self._messages.put_nowait({"push": push})

    async def _post(self, path: str, **request: Any) -> Message:
        try:
            response = await self._http.post(path, json={**self._connect_request, **request})
            result: Message = response.json()
        except (httpx.TransportError, ValueError):
            raise SessionEndedError(1006) from None
        if response.status_code != 200:
            raise SessionEndedError(result.get("disconnect", {}).get("code", 1006))
        return result

    async def messages(self) -> AsyncIterator[Message]:
        while not isinstance(message := await self._messages.get(), SessionEndedError):
            yield message
        raise message

    async def abort(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        await self._http.aclose()
