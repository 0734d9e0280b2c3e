"""POST requests handled in the HTTP connection itself: without ASGI, usually without a task, with one write.

Theory of operation. Between two requests, received bytes first go to a `RequestReader`. If they are one whole request
for a path of the handler, the handler responds to it. A task takes over only if the handler suspends. All other bytes
go unchanged to the HTTP server and its application, which have not seen them yet: other paths and methods, several
requests at once, an incomplete head, `Expect`, HTTP/1.0, upgrades, malformed bytes. So this module contains only the
simple case, and every other case is implemented once, in the HTTP server. Both use the same parser, httptools.

Most clients send the head first and the body right after it. So a complete head is held together with the received
part of the body, but only for `HOLD_S`: the HTTP server has limits for bodies that are large or slow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from os.path import commonpath
from typing import Any, Final, NamedTuple, Protocol, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from beaconfire.base.tasks import run_in_one_step, start_task
from beaconfire.base.timers import Timer
from beaconfire.transports.client_address import ClientAddresses
from beaconfire.transports.http.limits import HttpLimits, LimitedHttpProtocol
from beaconfire.transports.request_reader import Headers, RequestReader

HOLD_S: Final = 0.1
"""How long a head is held without its whole body. Then the HTTP server gets it."""

_ENCODED_HEADERS_MAX: Final = 256


class DirectResponse(Protocol):
    """A whole response. `headers` are all except content-length, with names in lower case.

    A handler uses few different headers, because their encoded form is cached.
    """

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]: ...

    @property
    def body(self) -> bytes: ...


class PostHandler(Protocol):
    """Responds to a POST exactly as the application would. Names of `headers` are in lower case."""

    def __call__(
        self, path: str, query: bytes, headers: Headers, body: bytes, address: str
    ) -> Awaitable[DirectResponse]: ...


class _InternalServerError(NamedTuple):
    """The response if the handler fails or is cancelled. uvicorn sends the same for an application."""

    status: int = 500
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"text/plain; charset=utf-8"),)
    body: bytes = b"Internal Server Error"


class DirectPosts:
    """Makes HTTP connections in which `handler` responds to POSTs to `paths`.

    The client's address is taken from the forwarding headers of `trusted_proxies`.
    """

    def __init__(
        self,
        limits: HttpLimits,
        paths: Sequence[str],
        handler: PostHandler,
        never_suspends: Callable[[str], bool],
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        """`never_suspends` tells whether `handler` runs in one step for a path."""
        self.limits = limits
        self.handler = handler
        self.never_suspends = never_suspends
        self.paths: Mapping[bytes, str] = {path.encode(): path for path in paths}
        self.prefix = b"POST " + commonpath(paths).encode()
        self._addresses = ClientAddresses(trusted_proxies)

    def protocol(self, head_deadline_s: float | None = None, **uvicorn: Any) -> DirectHttpProtocol:
        """As `HttpLimits.protocol`."""
        return DirectHttpProtocol(self, head_deadline_s, **uvicorn)

    def address(self, client: tuple[str, int] | None, headers: Headers) -> str:
        """The client's address for the log."""
        return self._addresses.find(client, headers)


class DirectHttpProtocol(LimitedHttpProtocol):
    """One HTTP connection with a handler in addition to the application."""

    def __init__(self, direct_posts: DirectPosts, head_deadline_s: float | None, **uvicorn: Any) -> None:
        super().__init__(direct_posts.limits, head_deadline_s, **uvicorn)
        self._direct_posts = direct_posts
        self._reader = RequestReader(self._limits.head_max_size)
        self._held = b""
        self._hold_timer: Timer | None = None
        self._is_handling = False
        self._early_data = b""
        self._is_last_request = False

    def data_received(self, data: bytes) -> None:
        if self._is_handling:
            self._early_data += data  # at most the rest of one read, because reading is paused
        elif self._held or (data.startswith(self._direct_posts.prefix) and self._is_between_requests()):
            self._read(data)
        else:
            super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._release_held()
        self._reader.close()
        super().connection_lost(error)

    def shutdown(self) -> None:
        self._release_held()
        if self._is_handling:
            self._is_last_request = True
        else:
            super().shutdown()

    def _become_websocket(self, rest: bytes) -> None:
        self._reader.close()
        super()._become_websocket(rest)

    def _is_between_requests(self) -> bool:
        return not self._in_head and not self._in_body and self._is_idle()

    def _read(self, data: bytes) -> None:
        """Handles the request if it is whole, and holds it if only body data is missing.

        Any other request goes to the HTTP server.
        """
        self._held += data
        reader = self._reader
        if not reader.feed(data) or not reader.is_plain:
            self._release_held()
            return
        target, _, query = reader.target.partition(b"?")
        path = self._direct_posts.paths.get(target)
        if path is None:
            self._release_held()
        elif reader.is_complete:
            self._held = b""
            self._handle(path, query)
        elif reader.content_length > self._limits.head_max_size:
            self._release_held()
        elif self._hold_timer is None:
            self._hold_timer = self._limits.timers.after(HOLD_S, self._release_held)

    def _release_held(self) -> None:
        """Passes the held bytes to the HTTP server, as if they had just been received."""
        self._cancel_hold_timer()
        held, self._held = self._held, b""
        if held:
            self._reader.close()
            self._reader = RequestReader(self._limits.head_max_size)
            super().data_received(held)

    def _cancel_hold_timer(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None

    def _handle(self, path: str, query: bytes) -> None:
        self._cancel_hold_timer()
        self._cancel_request_timer()
        self._unset_keepalive_if_required()
        self._is_handling = True
        responding = self._respond(path, query, *self._reader.take())
        if self._direct_posts.never_suspends(path) and not self.flow.write_paused:
            run_in_one_step(responding)
            return
        task = start_task(responding)
        if not task.done():
            self.flow.pause_reading()
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    async def _respond(self, path: str, query: bytes, headers: Headers, body: bytes, keep_alive: bool) -> None:
        response, stays_open = cast(DirectResponse, _InternalServerError()), False
        try:
            address = self._direct_posts.address(self.client, headers)
            response = await self._direct_posts.handler(path, query, headers, body, address)
            if self.flow.write_paused:
                await self.flow.drain()
            stays_open = keep_alive and not self._is_last_request
        finally:
            self._is_handling = False
            if not self.transport.is_closing():
                self._write_response(response, stays_open)
        early_data, self._early_data = self._early_data, b""
        if early_data and not self.transport.is_closing():
            self.data_received(early_data)

    def _write_response(self, response: DirectResponse, keep_alive: bool) -> None:
        """Writes the same bytes that uvicorn would write."""
        headers, closes = _encode_headers(response.headers)
        close = b"" if closes or keep_alive else b"connection: close\r\n"
        common, closes_all = _encode_headers(tuple(self.server_state.default_headers))
        closes = closes or closes_all
        body = response.body
        length = b"content-length: %d\r\n" % len(body)
        self.transport.write(b"".join((STATUS_LINE[response.status], common, headers, length, close, b"\r\n", body)))
        if closes or not keep_alive:
            self.transport.close()
        self.on_response_complete()


@lru_cache(_ENCODED_HEADERS_MAX)
def _encode_headers(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[bytes, bool]:
    """The header fields as bytes, and whether they close the connection."""
    return b"".join(b"%b: %b\r\n" % header for header in headers), (b"connection", b"close") in headers
