"""Plain requests answered on the spot: without ASGI, without a task, with one write for head and body.

Theory of operation. Between two requests, what arrives is first read by a small parser of our own. If it is one whole
request for a path of the door, the door answers it, and only if the door really waits does a task take over. Whatever
else it is goes to the HTTP server and its application just as it came, and nobody has seen it yet: other paths and
methods, several requests at once, a head in pieces, `Expect`, HTTP/1.0, upgrades, nonsense. So the door has the plain
case only, and each of the others exists once. The parser is the same in both.

Most clients send the head first and the body right after it. So a head alone is held, with what there is of the body,
but not for long: a body that is large or slow is the server's business as well, which has limits for both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache
from os.path import commonpath
from typing import Any, Final, NamedTuple, Protocol, cast

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from beaconfire.base.tasks import run_eagerly
from beaconfire.base.timers import Timer
from beaconfire.transports.http.limits import HttpLimits, LimitedHttpProtocol
from beaconfire.transports.request_reader import Headers, RequestReader

HOLD_S: Final = 0.1
"""How long a body may be late before the HTTP server waits for it instead of us."""

_HEADS_MAX: Final = 256


class DirectResponse(Protocol):
    """A whole response. `headers` are all but content-length, with names in lower case, and few different ones."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]: ...

    @property
    def body(self) -> bytes: ...


class PostHandler(Protocol):
    """Answers a POST in every respect as the application would. Names of `headers` are in lower case."""

    def __call__(
        self, path: str, query: bytes, headers: Headers, body: bytes, address: str
    ) -> Awaitable[DirectResponse]: ...


class _Failure(NamedTuple):
    """What is left to say if a door fails, or is not waited for any longer; uvicorn says the same of an application."""

    status: int = 500
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"text/plain; charset=utf-8"),)
    body: bytes = b"Internal Server Error"


class DirectPosts:
    """Makes HTTP connections whose POSTs to `paths` are answered by `ask`.

    `trusted_proxies` are those whose word for the client's address is taken.
    """

    def __init__(
        self, guard: HttpLimits, paths: Sequence[str], ask: PostHandler, trusted_proxies: Sequence[str] = ()
    ) -> None:
        self.guard = guard
        self.ask = ask
        self.paths: Mapping[bytes, str] = {path.encode(): path for path in paths}
        self.beginning = b"POST " + commonpath(paths).encode()
        self._correct = ProxyHeadersMiddleware(_nothing, list(trusted_proxies)) if trusted_proxies else None

    def protocol(self, head_due_s: float | None = None, **uvicorn: Any) -> DirectHttpProtocol:
        """As `HttpLimits.protocol`."""
        return DirectHttpProtocol(self, head_due_s, **uvicorn)

    def address(self, client: tuple[str, int] | None, headers: Headers) -> str:
        """The client's, as it is logged."""
        if self._correct is not None:
            scope: Any = {"type": "http", "client": client, "headers": headers}
            # It corrects the scope in place and waits for nothing.
            run_eagerly(self._correct(scope, _nothing, _nothing))  # type: ignore[arg-type]  # a coroutine, no awaitable
            client = scope["client"]
        return client[0] if client else ""


class DirectHttpProtocol(LimitedHttpProtocol):
    """One HTTP connection, with a door beside the application."""

    def __init__(self, direct_posts: DirectPosts, head_due_s: float | None, **uvicorn: Any) -> None:
        super().__init__(direct_posts.guard, head_due_s, **uvicorn)
        self._direct_posts = direct_posts
        self._reader = RequestReader(self._guard.head_max_size)
        self._held = b""
        self._patience: Timer | None = None
        self._asking = False
        self._early = b""
        self._last = False

    def data_received(self, data: bytes) -> None:
        if self._asking:
            self._early += data  # the rest of one read at most: reading is paused
        elif self._held or (data.startswith(self._direct_posts.beginning) and self._is_between_requests()):
            self._read(data)
        else:
            super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._give_back()
        self._reader.close()
        super().connection_lost(error)

    def shutdown(self) -> None:
        self._give_back()
        if self._asking:
            self._last = True
        else:
            super().shutdown()

    def _become_websocket(self, rest: bytes) -> None:
        self._reader.close()
        super()._become_websocket(rest)

    def _is_between_requests(self) -> bool:
        return not self._in_head and not self._in_body and self._is_idle()

    def _read(self, data: bytes) -> None:
        """Answers the request if it is whole, holds it if only the body is to come, and else gives it back."""
        self._held += data
        reader = self._reader
        if not reader.feed(data) or not reader.is_plain:
            self._give_back()
            return
        target, _, query = reader.target.partition(b"?")
        path = self._direct_posts.paths.get(target)
        if path is None:
            self._give_back()
        elif reader.is_complete:
            self._held = b""
            self._ask(path, query)
        elif reader.content_length > self._guard.head_max_size:
            self._give_back()
        elif self._patience is None:
            self._patience = self._guard.timers.after(HOLD_S, self._give_back)

    def _give_back(self) -> None:
        """To the HTTP server, as if it came now."""
        self._stop_holding()
        held, self._held = self._held, b""
        if held:
            self._reader.close()
            self._reader = RequestReader(self._guard.head_max_size)
            super().data_received(held)

    def _stop_holding(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _ask(self, path: str, query: bytes) -> None:
        self._stop_holding()
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self._asking = True
        task = run_eagerly(self._answer(path, query, *self._reader.take()))
        if task is not None:
            self.flow.pause_reading()
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    async def _answer(self, path: str, query: bytes, headers: Headers, body: bytes, keep_alive: bool) -> None:
        answer, goes_on = cast(DirectResponse, _Failure()), False
        try:
            address = self._direct_posts.address(self.client, headers)
            answer = await self._direct_posts.ask(path, query, headers, body, address)
            if self.flow.write_paused:
                await self.flow.drain()
            goes_on = keep_alive and not self._last
        finally:
            self._asking = False
            if not self.transport.is_closing():
                self._write_answer(answer, goes_on)
        early, self._early = self._early, b""
        if early and not self.transport.is_closing():
            self.data_received(early)

    def _write_answer(self, answer: DirectResponse, keep_alive: bool) -> None:
        """Byte for byte what uvicorn would send."""
        headers, closes = _lines(answer.headers)
        close = b"" if closes or keep_alive else b"connection: close\r\n"
        common = _lines(tuple(self.server_state.default_headers))[0]
        body = answer.body
        length = b"content-length: %d\r\n" % len(body)
        self.transport.write(b"".join((STATUS_LINE[answer.status], common, headers, length, close, b"\r\n", body)))
        if closes or not keep_alive:
            self.transport.close()
        self.on_response_complete()


@lru_cache(_HEADS_MAX)
def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[bytes, bool]:
    """Header fields as they are sent, and whether they end the connection."""
    return b"".join(b"%b: %b\r\n" % header for header in headers), (b"connection", b"close") in headers


async def _nothing(*_: object) -> None:
    """An application that is of no interest."""
