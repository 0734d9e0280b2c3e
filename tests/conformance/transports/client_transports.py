"""The client side of every transport of the Centrifuge protocol, as one interface for the scenario."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

import httpx

from beaconfire.protocols.centrifuge import schema_pb2 as wire
from tests.acceptance.deadlines import DEADLINE_S
from tests.acceptance.raw_peer import BINARY, CLOSE, NATIVE_PATH, PONG, TEXT, RawPeer, encode_frame
from tests.conformance.transports.encodings import Encoding, JsonEncoding, Message, ProtobufEncoding, SessionEndedError
from tests.conformance.transports.poll_client_transport import PollClientTransport
from tests.conformance.transports.server_address import Address, base_url


class ClientTransport(Protocol):
    """One connection over one transport."""

    async def send(self, commands: Sequence[Message]) -> None:
        """Sends commands. The first command must be connect."""

    def messages(self) -> AsyncIterator[Message]:
        """All messages from the server. Raises SessionEndedError at the end."""

    async def abort(self) -> None:
        """Ends the connection without a close frame, as a broken network does."""


class WebSocketClientTransport:
    """A WebSocket, with the encoding as its subprotocol."""

    def __init__(self, server: Address, encoding: Encoding) -> None:
        self._server = server
        self._encoding = encoding
        self._peer: RawPeer | None = None
        self._opened = asyncio.Event()

    async def send(self, commands: Sequence[Message]) -> None:
        if self._peer is None:
            self._peer = await RawPeer.connect_websocket(
                self._server.port,
                f"{self._server.prefix}{NATIVE_PATH}",
                [("Sec-WebSocket-Protocol", self._encoding.subprotocol)],
            )
            self._opened.set()
        opcode = TEXT if isinstance(self._encoding, JsonEncoding) else BINARY
        await self._peer.send(encode_frame(opcode, self._encoding.encode(commands)))

    async def messages(self) -> AsyncIterator[Message]:
        await self._opened.wait()
        assert self._peer is not None
        while True:
            try:
                received = await self._peer.read_frame()
            except EOFError:
                raise SessionEndedError(1006) from None
            if received.opcode == CLOSE:
                await self._peer.send(encode_frame(CLOSE, received.payload))
                raise SessionEndedError(received.close_code)
            if received.opcode < PONG:
                buffer = bytearray(received.payload)
                if isinstance(self._encoding, JsonEncoding):
                    buffer += b"\n"
                for message in self._encoding.decode(buffer):
                    yield message

    async def abort(self) -> None:
        if self._peer is not None:
            self._peer.reset()


class HttpStreamClientTransport:
    """A response stream, and emulation for the client's commands; `path` as in the protocol reference."""

    def __init__(self, server: Address, encoding: Encoding, path: str = "/connection/http_stream") -> None:
        self._encoding = encoding
        self._path = path
        self._stack = AsyncExitStack()
        self._http = httpx.AsyncClient(base_url=base_url(server), timeout=DEADLINE_S)
        self._response: httpx.Response | None = None
        self._opened = asyncio.Event()
        self._session = self._node = ""

    async def send(self, commands: Sequence[Message]) -> None:
        data = self._encoding.encode(commands)
        if self._response is None:
            self._response = await self._stack.enter_async_context(self._open_stream(data))
            assert self._response.status_code == 200, await self._response.aread()
            self._opened.set()
            return
        response = await self._http.post("/emulation", content=self._emulation_request(data), headers=self._headers())
        assert response.status_code in (204, 404), response.text

    def _open_stream(self, commands: bytes) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream("POST", self._path, content=commands, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {"Content-Type": self._encoding.content_type}

    def _emulation_request(self, data: bytes) -> bytes:
        if isinstance(self._encoding, ProtobufEncoding):
            return wire.EmulationRequest(session=self._session, node=self._node, data=data).SerializeToString()
        return json.dumps({"session": self._session, "node": self._node, "data": data.decode()}).encode()

    async def messages(self) -> AsyncIterator[Message]:
        await self._opened.wait()
        assert self._response is not None
        buffer, code = bytearray(), 1006
        try:
            async for chunk in self._response.aiter_raw():
                buffer += chunk
                for message in self._decode(buffer):
                    if "connect" in message:
                        self._session, self._node = message["connect"]["session"], message["connect"]["node"]
                    code = message.get("push", {}).get("disconnect", {}).get("code", code)
                    yield message
        except httpx.TransportError:
            pass
        raise SessionEndedError(code)

    def _decode(self, buffer: bytearray) -> list[Message]:
        return self._encoding.decode(buffer)

    async def abort(self) -> None:
        await self._stack.aclose()
        await self._http.aclose()


class SseClientTransport(HttpStreamClientTransport):
    """Server-Sent Events, requested as by an `EventSource`."""

    def __init__(self, server: Address, encoding: Encoding) -> None:
        super().__init__(server, encoding, "/connection/sse")

    def _open_stream(self, commands: bytes) -> AbstractAsyncContextManager[httpx.Response]:
        return self._http.stream("GET", self._path, params={"cf_connect": commands.decode()})

    def _decode(self, buffer: bytearray) -> list[Message]:
        *events, rest = bytes(buffer).removeprefix(b":\n\n").split(b"\n\n")
        buffer[:] = rest
        return [json.loads(event.removeprefix(b"data: ")) for event in events]


PERSISTENT_TRANSPORTS: dict[str, Callable[[Address], ClientTransport]] = {
    "websocket-json": lambda server: WebSocketClientTransport(server, JsonEncoding()),
    "websocket-protobuf": lambda server: WebSocketClientTransport(server, ProtobufEncoding()),
    "http_stream-json": lambda server: HttpStreamClientTransport(server, JsonEncoding()),
    "http_stream-protobuf": lambda server: HttpStreamClientTransport(server, ProtobufEncoding()),
    "sse-json": lambda server: SseClientTransport(server, JsonEncoding()),
}
"""Every transport whose session lasts longer than one request, in every encoding of the transport."""

CLIENT_TRANSPORTS: dict[str, Callable[[Address], ClientTransport]] = {
    **PERSISTENT_TRANSPORTS,
    "poll-json": PollClientTransport,
}
"""Every bidirectional transport of the Centrifuge protocol. The session of a poll ends with its request, so polling has
no presence, no pings and no slow clients."""
