"""Ways for a client of the native protocol to reach the server. Each is a `Line`; the scenario knows no other word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import httpx

from beaconfire.protocols.centrifuge import schema_pb2 as wire
from tests.acceptance.deadlines import DEADLINE_S
from tests.acceptance.raw_peer import BINARY, CLOSE, PONG, TEXT, RawPeer, encode_frame
from tests.conformance.transports.polls import PollLine
from tests.conformance.transports.speech import EndedError, JsonSpeech, Message, ProtobufSpeech, Speech


class Line(Protocol):
    """One connection, over whatever it takes."""

    async def send(self, commands: Sequence[Message]) -> None:
        """The first of all must be connect."""

    def messages(self) -> AsyncIterator[Message]:
        """Everything the server says. Raises EndedError at the end."""

    async def cut(self) -> None:
        """Ends it without a word, as a bad network does."""


class WebSocketLine:
    def __init__(self, port: int, speech: Speech) -> None:
        self._port = port
        self._speech = speech
        self._peer: RawPeer | None = None
        self._opened = asyncio.Event()

    async def send(self, commands: Sequence[Message]) -> None:
        if self._peer is None:
            self._peer = await RawPeer.connect_websocket(
                self._port, headers=[("Sec-WebSocket-Protocol", self._speech.subprotocol)]
            )
            self._opened.set()
        opcode = TEXT if isinstance(self._speech, JsonSpeech) else BINARY
        await self._peer.send(encode_frame(opcode, self._speech.encode(commands)))

    async def messages(self) -> AsyncIterator[Message]:
        await self._opened.wait()
        assert self._peer is not None
        while True:
            try:
                received = await self._peer.read_frame()
            except EOFError:
                raise EndedError(1006) from None
            if received.opcode == CLOSE:
                await self._peer.send(encode_frame(CLOSE, received.payload))
                raise EndedError(received.close_code)
            if received.opcode < PONG:
                buffer = bytearray(received.payload)
                if isinstance(self._speech, JsonSpeech):
                    buffer += b"\n"
                for message in self._speech.take(buffer):
                    yield message

    async def cut(self) -> None:
        if self._peer is not None:
            self._peer.reset()


class StreamLine:
    """A response that does not end, and requests for what the client says; `path` as in the protocol's reference."""

    def __init__(self, port: int, speech: Speech, path: str = "/connection/http_stream") -> None:
        self._speech = speech
        self._path = path
        self._stack = AsyncExitStack()
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S)
        self._response: httpx.Response | None = None
        self._opened = asyncio.Event()
        self._session = self._node = ""

    async def send(self, commands: Sequence[Message]) -> None:
        data = self._speech.encode(commands)
        if self._response is None:
            self._response = await self._stack.enter_async_context(self._request(data))
            assert self._response.status_code == 200, await self._response.aread()
            self._opened.set()
            return
        answer = await self._http.post("/emulation", content=self._envelope(data), headers=self._headers())
        assert answer.status_code in (204, 404), answer.text

    def _request(self, opening: bytes) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream("POST", self._path, content=opening, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": self._speech.content_type}

    def _envelope(self, data: bytes) -> bytes:
        if isinstance(self._speech, ProtobufSpeech):
            return wire.EmulationRequest(session=self._session, node=self._node, data=data).SerializeToString()
        return json.dumps({"session": self._session, "node": self._node, "data": data.decode()}).encode()

    async def messages(self) -> AsyncIterator[Message]:
        await self._opened.wait()
        assert self._response is not None
        buffer, code = bytearray(), 1006
        try:
            async for piece in self._response.aiter_raw():
                buffer += piece
                for message in self._take(buffer):
                    if "connect" in message:
                        self._session, self._node = message["connect"]["session"], message["connect"]["node"]
                    code = message.get("push", {}).get("disconnect", {}).get("code", code)
                    yield message
        except httpx.TransportError:
            pass
        raise EndedError(code)

    def _take(self, buffer: bytearray) -> list[Message]:
        return self._speech.take(buffer)

    async def cut(self) -> None:
        await self._stack.aclose()
        await self._http.aclose()


class EventLine(StreamLine):
    """Server-Sent Events, asked for as `EventSource` does."""

    def __init__(self, port: int, speech: Speech) -> None:
        super().__init__(port, speech, "/connection/sse")

    def _request(self, opening: bytes) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream("GET", self._path, params={"cf_connect": opening.decode()})

    def _take(self, buffer: bytearray) -> list[Message]:
        *events, rest = bytes(buffer).removeprefix(b":\n\n").split(b"\n\n")
        buffer[:] = rest
        return [json.loads(event.removeprefix(b"data: ")) for event in events]


LASTING: dict[str, Callable[[int], Line]] = {
    "websocket-json": lambda port: WebSocketLine(port, JsonSpeech()),
    "websocket-protobuf": lambda port: WebSocketLine(port, ProtobufSpeech()),
    "http_stream-json": lambda port: StreamLine(port, JsonSpeech()),
    "http_stream-protobuf": lambda port: StreamLine(port, ProtobufSpeech()),
    "sse-json": lambda port: EventLine(port, JsonSpeech()),
}
"""Every transport with sessions that last, in every encoding that it has."""

LINES: dict[str, Callable[[int], Line]] = {**LASTING, "poll-json": PollLine}
"""Every transport of the native protocol that a client can speak over. A poll's sessions end with their requests, so
that it is in nobody's presence, has no pings, and can't be slow."""
