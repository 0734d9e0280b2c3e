"""HTTP connections that dawdle or overdo it are ended before they cost anything.

uvicorn waits for a request for as long as the client likes, and collects whatever size of head it sends. This is its
httptools protocol with deadlines and a limit added; everything else, and all of the parsing, stays as it is.

Except for upgrades. httptools takes every request that asks for one for the last of its connection: it skips the body,
and uvicorn drops what came with the head and parses what comes later as the next request. But a server that does not
support the protocol asked for answers the request as any other (RFC 9110 section 7.8). So a request is upgraded only if
it asks for a WebSocket by GET. The head of every other one is parsed a second time, by a new parser and without its
Upgrade header field; then its body is a body.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.transports.options import ServerOptions
from beaconfire.transports.request_reader import has_one_valid_host
from beaconfire.transports.reset import EXTENSION, abandon_after, reset

_TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


PIPELINE_MAX: Final = 16
"""Requests of one connection that wait for an earlier answer. What is read at once may hold thousands, and each takes
a hundred times its size; no browser and no usual library sends a second one before the first is answered."""


class HttpLimits:
    """Makes guarded connections; `protocol` is what uvicorn gets as its `http=`.

    - `server.handshake_timeout` is the time from the opening of a connection, or from the first byte of a later
      request, to the end of the request's head. Then the connection is cut.
    - `server.header_max_size` bounds the head: request line and header fields. Beyond it: 431, and cut. It also bounds
      what comes without any of the body after that: trailer fields, which are dropped, and extensions of chunks.
    - The body must be there within `server.keep_alive_timeout` after the head, which a handler's own limits on the
      size and pace of bodies will usually undercut.
    - Of requests that are sent before earlier ones are answered, `PIPELINE_MAX` wait; beyond it the connection is cut.
    - A response that nobody reads holds the connection for `server.keep_alive_timeout` as well, and no longer: then
      the connection is reset. An application may ask for that earlier, by `scope["extensions"][EXTENSION]`.

    Somebody must call `timers.run_due` now and then.
    """

    def __init__(self, options: ServerOptions, timers: Timers, events: EventSink) -> None:
        self.head_timeout_s = float(options.handshake_timeout)
        self.head_max_size = int(options.header_max_size)
        self.body_timeout_s = float(options.keep_alive_timeout)
        self.timers = timers
        self.events = events

    def protocol(self, head_due_s: float | None = None, **uvicorn: Any) -> LimitedHttpProtocol:
        """`head_due_s` is when the first head must be there, if the connection was opened some time ago."""
        return LimitedHttpProtocol(self, head_due_s, **uvicorn)


class LimitedHttpProtocol(HttpToolsProtocol):
    """One HTTP connection. At most one timer is pending for it, and none while a request arrives in one piece."""

    def __init__(self, guard: HttpLimits, head_due_s: float | None = None, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._guard = guard
        self._head_due_s = head_due_s
        self._deadline: Timer | None = None
        self._unread: Timer | None = None
        self._in_head = False
        self._in_body = False
        self._head_at_least = 0
        self._head_at_most = 0
        self._without_body = 0
        """Bytes received after the head and since the last of the body."""
        self._too_large = False
        self._too_many = False
        self._wrong = ""
        self._upgraded_head = b""
        self._ordinary_head = b""
        self._answering: RequestResponseCycle | None = None
        self._extensions: dict[str, Any] = {}
        self._is_cut = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._extensions = {EXTENSION: partial(reset, transport)}
        if self._head_due_s is None:
            self._wait_at_most(self._guard.head_timeout_s)
        else:
            self._deadline = self._guard.timers.at(self._head_due_s, self._give_up)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_waiting()
        self._stop_waiting_for_reader()
        self._forget_requests()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        continued = self._in_head
        self._head_at_most = self._head_at_most + len(data) if continued else len(data)
        self._without_body += len(data)
        self._parse(data)
        if self.transport.is_closing() or self.parser is None:
            return
        if self._in_head:
            # Where in its first piece a head begins is not known, so that piece counts with what is parsed of it.
            self._head_at_least = self._head_at_least + len(data) if continued else self._head_size()
            if self._head_at_least > self._guard.head_max_size:
                self._too_large = True
                self.send_400_response("")
                return
        elif self._in_body and self._without_body > self._guard.head_max_size:
            self._too_large = True
            self.send_400_response("")
            return
        if self._deadline is None:
            self._limit_waiting()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._limit_closing()

    def reset_unread(self) -> None:
        """Resets the connection if its peer has not taken all that was written."""
        if self._is_behind:
            self._reset()

    def resume_writing(self) -> None:
        self._stop_waiting_for_reader()
        super().resume_writing()
        self._limit_closing()  # what is left is little, but has to be read as well

    def timeout_keep_alive_handler(self) -> None:
        if self._is_behind:
            self._give_up_on_reader()
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailer fields are dropped: they must not count as header fields (RFC 9110 section 6.5.1), and would let one
        request take memory without end."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._without_body = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._in_body = True
        self._without_body = 0
        self._stop_waiting()
        most = self._guard.head_max_size
        if self._head_at_most > most and self._head_size() > most:
            self._too_large = True
            raise ValueError("request head too large")  # ends the parsing; answered in send_400_response
        if self.parser.should_upgrade():
            self._on_upgrade()
            return
        if self.parser.get_http_version() != "1.0":
            self._check_host()
        if len(self.pipeline) >= PIPELINE_MAX:
            self._too_many = True
            raise ValueError("too many requests at once")  # likewise
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._stop_waiting()
        if not self.parser.should_upgrade():  # else uvicorn would take the body of the request before for complete
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._stop_waiting()
        self._forget_requests()
        if self._too_many:
            self._guard.events.emit(LimitHit("http_pipeline_max", ""))
            self._end()
        elif self._too_large:
            self._guard.events.emit(LimitHit("server.header_max_size", ""))
            self.transport.write(_TOO_LARGE)
            self._end()
        else:
            super().send_400_response(self._wrong or msg)
            self._limit_closing()

    def _parse(self, data: bytes) -> None:
        """In the place of uvicorn's `data_received`, which knows of no request to be parsed after an upgrade."""
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                rest = data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
            if self._upgraded_head:
                self._become_websocket(rest)
                return
            assert self._ordinary_head, "an upgrade that was not decided on"  # else a body would become a request
            # Not the same parser again: after `Connection: close` it reads nothing more.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            data, self._ordinary_head = self._ordinary_head + rest, b""

    def _on_upgrade(self) -> None:
        """The parser takes this request for the last one. Decides whether it is, and keeps its head for either."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse("CONNECT is not supported here.")  # what follows would be neither a body nor requests
        # While an earlier request is unanswered there is no upgrade: that answer would get into the WebSocket.
        upgrades = method == b"GET" and self._is_idle() and self._asks_for_websocket()
        lines = [b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b\r\n" % header for header in self.headers if upgrades or header[0] != b"upgrade"]
        head = b"".join([*lines, b"\r\n"])
        if upgrades:
            self._upgraded_head = head
        else:
            self._ordinary_head = head

    def _asks_for_websocket(self) -> bool:
        """Whether an Upgrade header field names the protocol, alone or among others, in any case."""
        values = b",".join(value for name, value in self.headers if name == b"upgrade")
        return self.ws_protocol_class is not None and b"websocket" in (
            protocol.strip(b" \t").lower() for protocol in values.split(b",")
        )

    def _check_host(self) -> None:
        """RFC 9112 section 3.2. Who asks for a WebSocket is told the same by the acceptor."""
        if not has_one_valid_host(self.headers):
            self._refuse("The request must have one Host header, and a valid one.")

    def _refuse(self, text: str) -> None:
        """Ends the parsing; `send_400_response` says this then."""
        self._wrong = text
        raise ValueError(text)

    def _become_websocket(self, rest: bytes) -> None:
        """Gives the connection away, with the bytes that came after the request, and lets go of everything."""
        self._stop_waiting()
        self._answering = None
        self.connections.discard(self)
        make: Any = self.ws_protocol_class  # there is one, or there would be no upgrade
        successor = make(config=self.config, server_state=self.server_state, app_state=self.app_state)
        successor.connection_made(self.transport)
        successor.data_received(self._upgraded_head)
        self.transport.set_protocol(successor)
        # A peer that has yet to read earlier answers is the successor's concern, which alone is told when it has.
        self._stop_waiting_for_reader()
        if rest:
            successor.data_received(rest)
        # Parser and protocol hold each other; without this they would stay until the next full garbage collection.
        self.parser = None  # type: ignore[assignment]  # as uvicorn does at the end of a connection
        self.scope = None  # type: ignore[assignment]  # nobody reads it after the upgrade
        self.headers = []
        self._upgraded_head = b""

    def _is_idle(self) -> bool:
        """Whether every request that was parsed is answered."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first

    def _head_size(self) -> int:
        """Bytes of the parsed head, give or take the request line's fixed parts."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _limit_waiting(self) -> None:
        """Sees to it that what has begun ends, and that stray line ends do not count as activity."""
        if self._in_body:
            self._wait_at_most(self._guard.body_timeout_s)
        elif self._in_head or (self._is_idle() and self.timeout_keep_alive_task is None):
            self._wait_at_most(self._guard.head_timeout_s)

    def _wait_at_most(self, seconds: float) -> None:
        self._deadline = self._guard.timers.after(seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        limit = "server.keep_alive_timeout" if self._in_body else "server.handshake_timeout"
        self._guard.events.emit(LimitHit(limit, ""))
        if self._in_head:
            self.transport.write(_TOO_LATE)
        self._forget_requests()
        self._end()

    def _wait_for_reader(self) -> None:
        if self._unread is None:
            self._unread = self._guard.timers.after(self._guard.body_timeout_s, self._give_up_on_reader)

    def _limit_closing(self) -> None:
        """A connection that is being closed first sends what is written, however long the peer takes to read it."""
        if self.transport.is_closing():
            abandon_after(self.transport, self._guard.body_timeout_s)
            if self._is_behind:
                self._wait_for_reader()

    @property
    def _is_behind(self) -> bool:
        """The peer has yet to take something. Under TLS the buffer may look empty meanwhile."""
        return self.flow.write_paused or self.transport.get_write_buffer_size() > 0

    def _give_up_on_reader(self) -> None:
        self._unread = None
        if self._is_cut or not self._is_behind:
            return  # both deadlines came at once, or it has read the last of it
        self._guard.events.emit(LimitHit("server.keep_alive_timeout", ""))
        self._forget_requests()
        self._reset()

    def _reset(self) -> None:
        self._is_cut = True
        reset(self.transport)

    def _stop_waiting_for_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _forget_requests(self) -> None:
        """uvicorn tells only the latest request that the connection is gone; the others would write to it."""
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
            self._answering = None

    def _end(self) -> None:
        """Closes the connection; at once if the peer does not read, since closing waits for what is written."""
        if self._is_behind:
            self._reset()
        else:
            self.transport.close()
