"""HTTP connections with limits: clients that send too slowly, send too much or read too slowly are disconnected.

uvicorn waits without limit for a request, and stores a request head of any size. This module adds deadlines and size
limits to uvicorn's httptools protocol. uvicorn still does all of the parsing and everything else.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.transports.http.upgrades import UpgradingHttpProtocol
from beaconfire.transports.options import ServerOptions
from beaconfire.transports.reset import EXTENSION, SENDS_AT_ONCE, abandon_after, reset

_REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


PIPELINE_MAX: Final = 16
"""Requests of one connection that wait for an earlier response. One read may contain thousands of requests, and each
takes a hundred times its size in memory. No browser and no common library sends a second request before the first
response."""


class HttpLimits:
    """Makes HTTP connections with limits. uvicorn gets `protocol` as its `http=`.

    - `server.handshake_timeout` is the time from the opening of a connection, or from the first byte of a later
      request, to the end of the request head. Then the connection is closed.
    - `server.header_max_size` limits the head: request line and header fields. Beyond it: 431, and the connection is
      closed. The same limit holds for bytes after the head that contain no body data: trailer fields, which are
      dropped, and chunk extensions.
    - The body must be complete within `server.keep_alive_timeout` after the head. The limits of a handler on the size
      and speed of bodies are usually shorter.
    - `PIPELINE_MAX` requests may wait for earlier responses. Beyond it the connection is closed.
    - If the client does not read a response for `server.keep_alive_timeout`, the connection is reset. An application
      may reset it earlier, by `scope["extensions"][EXTENSION]`.

    `timers.run_due` must be called regularly.
    """

    def __init__(self, options: ServerOptions, timers: Timers, events: EventSink) -> None:
        self.head_timeout_s = float(options.handshake_timeout)
        self.head_max_size = int(options.header_max_size)
        self.body_timeout_s = float(options.keep_alive_timeout)
        self.timers = timers
        self.events = events

    def protocol(self, head_deadline_s: float | None = None, **uvicorn: Any) -> LimitedHttpProtocol:
        """`head_deadline_s` is the time by which the first head must be complete, if the connection is not new."""
        return LimitedHttpProtocol(self, head_deadline_s, **uvicorn)


class LimitedHttpProtocol(UpgradingHttpProtocol):
    """One HTTP connection. It has at most one request timer, and none for a request that comes in one read."""

    def __init__(self, limits: HttpLimits, head_deadline_s: float | None = None, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._limits = limits
        self._head_deadline_s = head_deadline_s
        self._request_timer: Timer | None = None
        self._write_timer: Timer | None = None
        self._in_head = False
        self._in_body = False
        self._head_size_min = 0
        self._head_size_max = 0
        self._size_since_body = 0
        """Bytes received after the head and since the last body data."""
        self._is_too_large = False
        self._is_pipeline_full = False
        self._active_cycle: RequestResponseCycle | None = None
        """The request whose response is being made."""
        self._extensions: dict[str, Any] = {}
        self._is_reset = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._extensions = {EXTENSION: partial(reset, transport), SENDS_AT_ONCE: self._sends_at_once}
        if self._head_deadline_s is None:
            self._start_request_timer(self._limits.head_timeout_s)
        else:
            self._request_timer = self._limits.timers.at(self._head_deadline_s, self._on_request_timeout)

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel_request_timer()
        self._cancel_write_timer()
        self._drop_requests()
        super().connection_lost(error)

    def _sends_at_once(self) -> bool:
        return not self.flow.write_paused

    # -- Reading -----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        continued = self._in_head
        self._head_size_max = self._head_size_max + len(data) if continued else len(data)
        self._size_since_body += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self.parser is None:
            return
        if self._in_head:
            # The start of a head within its first read is unknown. Of that read, only the parsed fields are counted.
            self._head_size_min = self._head_size_min + len(data) if continued else self._head_size()
            if self._head_size_min > self._limits.head_max_size:
                self._is_too_large = True
                self.send_400_response("")
                return
        elif self._in_body and self._size_since_body > self._limits.head_max_size:
            self._is_too_large = True
            self.send_400_response("")
            return
        if self._request_timer is None:
            self._limit_next_wait()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def on_header(self, name: bytes, value: bytes) -> None:
        """Drops trailer fields: they must not count as header fields (RFC 9110 section 6.5.1), and they would let one
        request use memory without limit."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._size_since_body = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._in_body = True
        self._size_since_body = 0
        self._cancel_request_timer()
        size_max = self._limits.head_max_size
        if self._head_size_max > size_max and self._head_size() > size_max:
            self._is_too_large = True
            raise ValueError("request head too large")  # stops the parser; `send_400_response` sends the response
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._cancel_request_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._cancel_request_timer()
        self._drop_requests()
        if self._is_pipeline_full:
            self._limits.events.emit(LimitHit("http_pipeline_max", ""))
            self._close()
        elif self._is_too_large:
            self._limits.events.emit(LimitHit("server.header_max_size", ""))
            self.transport.write(_HEAD_TOO_LARGE)
            self._close()
        else:
            super().send_400_response(msg)
            self._limit_close()

    def _start_request(self) -> None:
        if len(self.pipeline) >= PIPELINE_MAX:
            self._is_pipeline_full = True
            raise ValueError("too many requests at once")  # stops the parser, as above
        super()._start_request()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def _become_websocket(self, rest: bytes) -> None:
        self._cancel_request_timer()
        self._active_cycle = None
        super()._become_websocket(rest)
        # Earlier responses may be unread. Only the successor learns when the client reads them, so it sets the limit.
        self._cancel_write_timer()

    def _head_size(self) -> int:
        """Bytes of the parsed head, without the fixed parts of the request line."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _limit_next_wait(self) -> None:
        """Sets a deadline for the rest of a request, and for the next request after stray line ends."""
        if self._in_body:
            self._start_request_timer(self._limits.body_timeout_s)
        elif self._in_head or (self._is_idle() and self.timeout_keep_alive_task is None):
            self._start_request_timer(self._limits.head_timeout_s)

    def _start_request_timer(self, timeout_s: float) -> None:
        self._request_timer = self._limits.timers.after(timeout_s, self._on_request_timeout)

    def _cancel_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _on_request_timeout(self) -> None:
        self._request_timer = None
        limit = "server.keep_alive_timeout" if self._in_body else "server.handshake_timeout"
        self._limits.events.emit(LimitHit(limit, ""))
        if self._in_head:
            self.transport.write(_REQUEST_TIMEOUT)
        self._drop_requests()
        self._close()

    # -- Writing and closing -----------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        self._cancel_write_timer()
        super().resume_writing()
        self._limit_close()  # the rest is small, but the client has to read it as well

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._limit_close()

    def timeout_keep_alive_handler(self) -> None:
        if self._has_unsent_data:
            self._on_write_timeout()
        else:
            super().timeout_keep_alive_handler()

    def reset_unread(self) -> None:
        """Resets the connection if its peer has not taken all that was written."""
        if self._has_unsent_data:
            self._reset()

    @property
    def _has_unsent_data(self) -> bool:
        """Whether the kernel has not taken all that was written. Under TLS the buffer may look empty before that."""
        return self.flow.write_paused or self.transport.get_write_buffer_size() > 0

    def _limit_close(self) -> None:
        """Limits the time of closing: a closing connection first sends all that was written."""
        if self.transport.is_closing():
            abandon_after(self.transport, self._limits.body_timeout_s)
            if self._has_unsent_data:
                self._start_write_timer()

    def _start_write_timer(self) -> None:
        if self._write_timer is None:
            self._write_timer = self._limits.timers.after(self._limits.body_timeout_s, self._on_write_timeout)

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _on_write_timeout(self) -> None:
        self._write_timer = None
        if self._is_reset or not self._has_unsent_data:
            return  # two timers ended at the same time, or the peer has read the rest
        self._limits.events.emit(LimitHit("server.keep_alive_timeout", ""))
        self._drop_requests()
        self._reset()

    def _reset(self) -> None:
        self._is_reset = True
        reset(self.transport)

    def _drop_requests(self) -> None:
        """uvicorn tells only the latest request that the connection is closed; the others would write to it."""
        self.pipeline.clear()
        if self._active_cycle is not None:
            self._active_cycle.disconnected = True
            self._active_cycle.message_event.set()
            self._active_cycle = None

    def _close(self) -> None:
        """Closes the connection, or resets it if the peer does not read: a close would wait for the peer."""
        if self._has_unsent_data:
            self._reset()
        else:
            self.transport.close()
