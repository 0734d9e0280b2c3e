"""One connection to the hub, from the attempt to its end. The link makes one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from beaconfire.base.errors import LIMIT_EXCEEDED, CommandError, EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.engines.wire.frames import FRAME_BYTES_MAX, REQUEST_BYTES_MAX, FrameStream, to_frame
from beaconfire.engines.wire.messages import (
    Failed,
    FromHub,
    Hello,
    Message,
    Refused,
    Reply,
    Request,
    Unexpected,
    Welcome,
    decode_from_hub,
)
from beaconfire.engines.wire.unix_socket import OpenConnection, peer_problem
from beaconfire.engines.wire.values import from_failure

ReplyT = TypeVar("ReplyT", bound=Reply)

HANDSHAKE_TIMEOUT_S: Final = 5.0
"""How long the hub may take to answer `Hello`."""

Handlers: TypeAlias = Mapping[type[Message], Callable[[Any], None]]
"""What handles the messages of the hub that are not replies. Any: each function takes the one type that it is listed
for."""


class Connection:
    """Implements `frames.Receiver`. `on_lost` gets the reason when the connection has ended, once it was open."""

    def __init__(self, runtime: Runtime, handlers: Handlers, on_lost: Callable[[Connection, str], None]) -> None:
        self._runtime = runtime
        self._handlers = handlers
        self._tell_lost = on_lost
        loop = asyncio.get_running_loop()
        self._welcome: asyncio.Future[Welcome] = loop.create_future()
        self._is_welcome = False
        self._ended: asyncio.Future[str] = loop.create_future()
        """Gets the reason of the end."""
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self._stream: FrameStream[FromHub] = FrameStream(self, decode_from_hub, runtime, FRAME_BYTES_MAX)
        self.write = self._stream.write

    async def open(self, open_connection: OpenConnection, path: str, hello: Hello) -> Welcome:
        """Connects and introduces this node. Raises EngineUnavailable: then nothing remains of the connection."""
        try:
            await open_connection(lambda: self._stream, path)
        except OSError as error:
            raise EngineUnavailable(f"cannot connect to {path}: {error.strerror or error}") from error
        timer = self._runtime.prompt_timers.after(
            HANDSHAKE_TIMEOUT_S, lambda: self.close(f"the hub has not answered within {HANDSHAKE_TIMEOUT_S:g} s")
        )
        try:
            self.write(to_frame(hello))
            welcome = await self._welcome
            if self._ended.done():
                raise EngineUnavailable(self._ended.result())
            return welcome
        except BaseException:
            self.close("the attempt has ended")
            raise
        finally:
            timer.cancel()

    async def end(self) -> None:
        """Sends what was written, and returns when the connection has ended."""
        self._stream.end()
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.close("the hub takes nothing")
            raise

    def close(self, reason: str) -> None:
        """Ends the connection at once."""
        self._stream.close(reason)

    def send(self, request: Request, reply: type[ReplyT]) -> asyncio.Future[ReplyT]:
        """Sends a request. The future gets the reply, which is of this type, or what the call has raised at the hub.

        Raises CommandError 106 if the request is too long.
        """
        self._last_id += 1
        request.id = self._last_id
        frame = to_frame(request)
        if len(frame) > REQUEST_BYTES_MAX:
            problem = f"{type(request).__name__} has {len(frame)} bytes, and the hub takes {REQUEST_BYTES_MAX} at most"
            raise CommandError(LIMIT_EXCEEDED, problem)
        future: asyncio.Future[ReplyT] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        self.write(frame)
        return future

    # frames.Receiver

    def on_open(self) -> None:
        problem = peer_problem(self._stream.extra_info("socket"))
        if problem:
            self.close(problem)

    def on_message(self, message: FromHub) -> None:
        if not self._is_welcome:
            self._greet(message)
            return
        handle = self._handlers.get(type(message))
        if handle is not None:
            handle(message)
        elif isinstance(message, Reply):
            self._finish(message)
        else:
            self.close(f"the hub has sent {type(message).__name__} after the first message")

    def _finish(self, reply: Reply) -> None:
        future = self._waiting.pop(reply.id, None)
        if future is None or future.done():
            return  # The call was cancelled.
        if isinstance(reply, Failed | Unexpected):
            future.set_exception(from_failure(reply))
        else:
            future.set_result(reply)

    def on_lost(self, reason: str) -> None:
        reason = reason or "the hub has closed the connection"
        if not self._welcome.done():
            self._welcome.set_exception(EngineUnavailable(reason))
            self._welcome.exception()  # marks it as seen: an attempt that was cancelled does not look at it
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(EngineUnavailable(f"the link to the hub was lost before the answer: {reason}"))
        self._ended.set_result(reason)
        self._tell_lost(self, reason)

    def on_limit(self, name: str) -> None:
        """The reason of the end says enough; the hub counts its own limits."""

    def _greet(self, message: FromHub) -> None:
        if self._welcome.done():
            return  # The attempt was cancelled.
        if isinstance(message, Welcome):
            self._is_welcome = True
            self._welcome.set_result(message)
        elif isinstance(message, Refused):
            self.close(f"the hub has refused this node: {message.reason}")
        else:
            self.close(f"the first message of the hub is {type(message).__name__} and not Welcome")
