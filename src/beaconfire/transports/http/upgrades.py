"""HTTP connections on uvicorn's httptools protocol, with upgrades as RFC 9110 requires them.

httptools takes a request with an Upgrade header field for the last HTTP request of its connection: it skips the body,
and uvicorn drops the bytes that came with the head and parses later bytes as the next request. But a server that does
not support the requested protocol must handle the request as any other (RFC 9110 section 7.8).

So a request is upgraded only if it is a GET for a WebSocket. The head of every other request with an Upgrade field is
parsed a second time, by a new parser and without that field. Then the body is parsed as a body.
"""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from beaconfire.transports.request_reader import has_one_valid_host


class UpgradingHttpProtocol(HttpToolsProtocol):
    """One HTTP connection that may become a WebSocket."""

    def __init__(self, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._error_text = ""
        self._upgrade_head = b""
        """The head of a request for a WebSocket, once it is accepted."""
        self._ordinary_head = b""
        """The head of a request whose Upgrade field is ignored, until it is parsed again."""

    def data_received(self, data: bytes) -> None:
        """Replaces uvicorn's method, which parses no request after one with an Upgrade field."""
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
            if self._upgrade_head:
                self._become_websocket(rest)
                return
            # Without this head the body would be parsed as a request.
            assert self._ordinary_head, "an upgrade without a decision"
            # A new parser, because after `Connection: close` the old one reads nothing more.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
            data, self._ordinary_head = self._ordinary_head + rest, b""

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._on_upgrade()
            return
        if self.parser.get_http_version() != "1.0":
            self._check_host()
        self._start_request()

    def on_message_complete(self) -> None:
        # For an upgrade, uvicorn would take the body of the previous request for complete.
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(self._error_text or msg)

    def _start_request(self) -> None:
        """Passes the request whose head is complete to the application."""
        super().on_headers_complete()

    def _on_upgrade(self) -> None:
        """Decides whether the request is upgraded, and keeps its head for either case."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            # The bytes after CONNECT are neither a body nor requests.
            self._reject("CONNECT is not supported here.")
        # While an earlier request has no response, no upgrade is possible: the response would enter the WebSocket.
        upgrades = method == b"GET" and self._is_idle() and self._requests_websocket()
        lines = [b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b\r\n" % header for header in self.headers if upgrades or header[0] != b"upgrade"]
        head = b"".join([*lines, b"\r\n"])
        if upgrades:
            self._upgrade_head = head
        else:
            self._ordinary_head = head

    def _requests_websocket(self) -> bool:
        """Whether the Upgrade fields contain `websocket`, alone or in a list, in any case."""
        values = b",".join(value for name, value in self.headers if name == b"upgrade")
        return self.ws_protocol_class is not None and b"websocket" in (
            protocol.strip(b" \t").lower() for protocol in values.split(b",")
        )

    def _check_host(self) -> None:
        """RFC 9112 section 3.2. For WebSocket requests the acceptor makes the same check."""
        if not has_one_valid_host(self.headers):
            self._reject("The request must have one Host header, and a valid one.")

    def _reject(self, text: str) -> None:
        """Stops the parser by an exception. `send_400_response` then sends this text."""
        self._error_text = text
        raise ValueError(text)

    def _become_websocket(self, rest: bytes) -> None:
        """Passes the connection to the WebSocket protocol, with the bytes after the request, and releases all state."""
        self.connections.discard(self)
        make: Any = self.ws_protocol_class  # not None: `_requests_websocket` has checked it
        successor = make(config=self.config, server_state=self.server_state, app_state=self.app_state)
        successor.connection_made(self.transport)
        successor.data_received(self._upgrade_head)
        self.transport.set_protocol(successor)
        if rest:
            successor.data_received(rest)
        # Parser and protocol refer to each other: without this both would wait for a full garbage collection.
        self.parser = None  # type: ignore[assignment]  # as uvicorn does at the end of a connection
        self.scope = None  # type: ignore[assignment]  # nothing reads it after the upgrade
        self.headers = []
        self._upgrade_head = b""

    def _is_idle(self) -> bool:
        """Whether every parsed request has its response."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first
