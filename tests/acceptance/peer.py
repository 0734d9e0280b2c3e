"""WebSocket clients on bare sockets: `Peer` does what it is told, right or wrong, and `Client` behaves well.

Neither reads ahead: what nobody asks a `Peer` to read stays in the kernel, so a peer that does not read is really slow.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NATIVE = "/connection/websocket"
DEADLINE_S = 20.0
"""How long anything may take that should happen at once; generous, because the machine may be busy."""

_READ_BYTES = 256 * 1024

T = TypeVar("T")


def run(scenario: Coroutine[Any, Any, T], deadline_s: float = 50.0) -> T:
    """A whole scenario, which must be over by its deadline."""

    async def bounded() -> T:
        async with asyncio.timeout(deadline_s):
            return await scenario

    return asyncio.run(bounded())


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Returns once the condition holds; fails with `what` if it does not by the deadline."""
    end_s = time.monotonic() + deadline_s
    while True:
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return
        assert time.monotonic() < end_s, f"still not after {deadline_s} s: {what}"
        await asyncio.sleep(0.02)


class Frame(NamedTuple):
    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of a close frame; 1005 if it has none."""
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


class Response(NamedTuple):
    status: int
    headers: dict[str, str]


class ClosedError(Exception):
    """The server has ended the connection. `code` is that of its close frame, 1006 if there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    final: bool = True,
    masked: bool = True,
    announced: int = -1,
    compressed: bool = False,
) -> bytes:
    """A client's frame. `announced` is a length to claim instead of the payload's own, `compressed` only a bit."""
    size = len(payload) if announced < 0 else announced
    mask_bit = 0x80 if masked else 0
    head = bytes([(0x80 if final else 0) | (0x40 if compressed else 0) | opcode])
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65536:
        head += struct.pack("!BH", mask_bit | 126, size)
    else:
        head += struct.pack("!BQ", mask_bit | 127, size)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    pattern = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ pattern).to_bytes(len(payload), "big")


def upgrade_request(path: str = NATIVE, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Peer:
    """One TCP connection. Whatever waits for the server fails after `DEADLINE_S`."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._buffer = bytearray()
        self.accepted = Response(0, {})
        """How the upgrade was answered."""

    @classmethod
    async def dial(cls, port: int, receive_buffer: int = 0) -> Peer:
        """TCP and nothing more. A small `receive_buffer` (bytes) makes the kernel full soon."""
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        except BaseException:
            connection.close()
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection)

    @classmethod
    async def open(
        cls, port: int, path: str = NATIVE, headers: Sequence[tuple[str, str]] = (), receive_buffer: int = 0
    ) -> Peer:
        """A connection whose upgrade the server has accepted."""
        peer = await cls.dial(port, receive_buffer)
        await peer.send(upgrade_request(path, headers))
        response = await peer.response()
        assert response.status == 101, response
        peer.accepted = response
        return peer

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.close()

    async def send(self, *parts: bytes) -> None:
        """Raises OSError if the server has cut the connection."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.get_running_loop().sock_sendall(self.socket, b"".join(parts))

    async def say(self, *commands: dict[str, Any]) -> None:
        """JSON commands, in one text message."""
        await self.send(frame(TEXT, b"\n".join(json.dumps(command).encode() for command in commands)))

    async def response(self) -> Response:
        """The head of an HTTP response."""
        while b"\r\n\r\n" not in self._buffer:
            await self._more()
        end = self._buffer.index(b"\r\n\r\n")
        status_line, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        headers = dict(line.split(": ", 1) for line in lines)
        return Response(int(status_line.split(" ")[1]), {name.lower(): value for name, value in headers.items()})

    async def frame(self) -> Frame:
        """The next frame. Raises EOFError at the end of the connection, however it came."""
        head = await self.take(2)
        size = head[1] & 0x7F
        if size == 126:
            size = int.from_bytes(await self.take(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.take(8), "big")
        return Frame(head[0] & 0xF, bytes(await self.take(size)))

    async def messages(self) -> list[dict[str, Any]]:
        """The JSON messages of the next data frame. Raises ClosedError at the end of the connection."""
        while True:
            try:
                received = await self.frame()
            except EOFError:
                raise ClosedError(1006, "") from None
            if received.opcode == CLOSE:
                raise ClosedError(received.code, received.payload[2:].decode())
            if received.opcode in (TEXT, BINARY):
                return [json.loads(line) for line in received.payload.split(b"\n")]

    async def reply(self, identifier: int = 1) -> dict[str, Any]:
        """The reply to the command with this id; what comes before it is dropped."""
        while True:
            for message in await self.messages():
                if message.get("id") == identifier:
                    return message

    async def verdict(self) -> Frame:
        """The close frame with which the server ends the connection; what comes before it is dropped."""
        while True:
            received = await self.frame()
            if received.opcode == CLOSE:
                return received

    async def ended(self) -> None:
        """Returns once the server has ended the connection."""
        try:
            while True:
                await self._more()
        except EOFError:
            return

    async def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        await self.ended()
        return bytes(self._buffer)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Ends the connection with RST, as a crashed machine would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    async def take(self, count: int) -> bytearray:
        """The next bytes. Raises EOFError if the connection ends before."""
        while len(self._buffer) < count:
            await self._more()
        taken = self._buffer[:count]
        del self._buffer[:count]
        return taken

    async def _more(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE_S):
                data = await asyncio.get_running_loop().sock_recv(self.socket, _READ_BYTES)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
        if not data:
            raise EOFError
        self._buffer += data


@asynccontextmanager
async def company(count: int, arrive: Callable[[], Awaitable[Peer]]) -> AsyncIterator[list[Peer]]:
    """That many peers, one after the other; all of them are closed in the end."""
    peers: list[Peer] = []
    try:
        for _ in range(count):
            peers.append(await arrive())  # noqa: PERF401 - those who came are closed even if the next does not
        yield peers
    finally:
        for peer in peers:
            peer.close()


class Arrived(NamedTuple):
    """A publication, as a client got it. `at_s` is monotonic."""

    data: Any
    offset: int
    at_s: float


class Client:
    """A well-behaved user of the native protocol in JSON: reads everything at once and answers pings.

    `closed` resolves with the ClosedError that ended the connection; whatever waits for a reply then gets it too.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.connected: dict[str, Any] = {}
        self.publications: dict[str, list[Arrived]] = {}
        self.pushes: list[dict[str, Any]] = []
        """All other pushes."""
        self.closed_at_s = 0.0
        """When the server's close frame came; monotonic."""
        self.closed: asyncio.Future[ClosedError] = asyncio.get_running_loop().create_future()
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int, token: str = "", channels: Sequence[str] = ()) -> AsyncIterator[Client]:
        """Connected, anonymously without a token, and subscribed."""
        client = cls(await Peer.open(port))
        try:
            reply = await client.ask(connect={"token": token} if token else {})
            client.connected = reply["connect"]
            for channel in channels:
                reply = await client.ask(subscribe={"channel": channel})
                assert "subscribe" in reply, reply
            yield client
        finally:
            await client.leave()

    async def leave(self) -> None:
        """Ends the connection, politely if it is still there."""
        if not self.closed.done():
            try:
                await self.peer.send(frame(CLOSE, struct.pack("!H", 1000)))
            except OSError:
                pass  # the server was faster
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self.peer.close()

    @property
    def identifier(self) -> str:
        return str(self.connected["client"])

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Sends a command and returns its reply. Raises ClosedError if the connection ends first."""
        return (await self.ask_all([command]))[0]

    async def ask_all(self, commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """As `ask`, for several in one message."""
        if self.closed.done():
            raise self.closed.result()
        numbered = {next(self._ids): command for command in commands}
        futures = [self._replies.setdefault(identifier, asyncio.Future()) for identifier in numbered]
        await self.peer.say(*({"id": identifier, **command} for identifier, command in numbered.items()))
        async with asyncio.timeout(DEADLINE_S):
            return [await future for future in futures]

    async def outcome(self, **command: Any) -> int:
        """The code of the error that answers the command, or of the close frame that does; 0 if it went well."""
        try:
            reply = await self.ask(**command)
        except ClosedError as closed:
            return closed.code
        return int(reply.get("error", {}).get("code", 0))

    async def publish(self, channel: str, data: Any) -> None:
        reply = await self.ask(publish={"channel": channel, "data": data})
        assert "publish" in reply, reply

    def received(self, channel: str) -> list[Any]:
        """The data of all publications so far."""
        return [arrived.data for arrived in self.publications.get(channel, [])]

    async def _read(self) -> None:
        try:
            while True:
                for message in await self.peer.messages():
                    await self._on_message(message)
        except ClosedError as error:
            self.closed_at_s = time.monotonic()
            self.closed.set_result(error)
            await self._answer_close(error.code)
        except OSError as error:
            self.closed.set_result(ClosedError(1006, str(error)))
        for future in self._replies.values():
            if not future.done():
                future.set_exception(self.closed.result())
                future.exception()  # seen: nobody need be waiting for this one

    async def _answer_close(self, code: int) -> None:
        if code != 1006:
            try:
                await self.peer.send(frame(CLOSE, struct.pack("!H", code)))
            except OSError:
                pass  # the server did not wait for it
        self.peer.close()

    async def _on_message(self, message: dict[str, Any]) -> None:
        if not message:
            await self.peer.send(frame(TEXT, b"{}"))
        elif "id" in message:
            future = self._replies.pop(message["id"])
            if not future.done():
                future.set_result(message)
        elif "pub" in message["push"]:
            push = message["push"]
            arrived = Arrived(push["pub"]["data"], push["pub"].get("offset", 0), time.monotonic())
            self.publications.setdefault(push["channel"], []).append(arrived)
        else:
            self.pushes.append(message["push"])
