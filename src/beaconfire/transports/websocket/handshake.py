"""The opening handshake: an HTTP request is read, judged and answered (RFC 6455 section 4.2). No I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from hashlib import sha1
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs, unquote_to_bytes

from msgspec import Struct

from beaconfire.transports.port import ErrorResponse, OpenSession
from beaconfire.transports.request_reader import RequestReader

_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class HandshakeError(Exception):
    """The request is no acceptable opening handshake."""

    def __init__(self, refusal: ErrorResponse) -> None:
        super().__init__(f"{refusal.status} {refusal.text}")
        self.refusal = refusal


class UpgradeRequest:
    """What a client said when it asked for a WebSocket.

    `headers` maps lower-case names to values; those of a repeated header are joined with ", " (RFC 9110 section 5.2).
    `subprotocols` are those offered, in order of preference; an empty header offers none. `path` is decoded, `query`
    is not. `version` is that of HTTP: `1.1`. `has_valid_host` says whether there is one Host field, and a valid one.
    """

    __slots__ = ("_parameters", "has_valid_host", "headers", "method", "path", "query", "subprotocols", "version")

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        version: str = "1.1",
        has_valid_host: bool = True,
    ) -> None:
        self.method = method
        self.version = version
        self.has_valid_host = has_valid_host
        path, _, self.query = target.partition("?")
        self.path = unquote_to_bytes(path).decode(errors="replace") if "%" in path else path
        self.headers = headers
        self.subprotocols = _tokens(headers.get("sec-websocket-protocol", ""))
        self._parameters: dict[str, list[str]] | None = None

    @property
    def extensions(self) -> str:
        """What is offered, as in the header; usually one offer, and often none."""
        return self.headers.get("sec-websocket-extensions", "")

    @property
    def origin(self) -> str | None:
        return self.headers.get("origin")

    @property
    def host(self) -> str:
        return self.headers.get("host", "")

    def parameter(self, name: str) -> str:
        """The first value of a query parameter; empty if it is missing, empty or among too many others."""
        if self._parameters is None:
            try:
                self._parameters = parse_qs(self.query, max_num_fields=100) if self.query else {}
            except ValueError:  # more fields than that
                self._parameters = {}
        values = self._parameters.get(name)
        return values[0] if values else ""


class NegotiatedHandshake(Struct, frozen=True):
    """How an accepted connection goes on: who receives it, the subprotocol to echo, and what answers the offered
    extensions (empty for none). With an extension, which is always compression, what the client sends may be deflated.
    """

    open_session: OpenSession
    subprotocol: str = ""
    extension: str = ""


class Endpoint(Protocol):
    """What stands behind a path."""

    def negotiate(self, request: UpgradeRequest) -> NegotiatedHandshake | ErrorResponse:
        """Called for a valid handshake from an allowed origin. The request must not be kept."""


def read_upgrade(data: bytes, size_max: int) -> tuple[UpgradeRequest, int] | None:
    """The request for an upgrade that `data` begins with, and the length of its head in bytes.

    None if `data` begins with anything else, with a part of such a request, or with a head of over `size_max` bytes.
    """
    reader = RequestReader(size_max)
    try:
        if reader.feed(data) and reader.upgrade_offset:
            return upgrade_request(reader), reader.upgrade_offset
        return None
    finally:
        reader.close()


def upgrade_request(reader: RequestReader) -> UpgradeRequest:
    """The request whose head has been read."""
    headers: dict[str, str] = {}
    for name, value in reader.headers:
        key, text = name.decode("latin-1"), value.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    target = reader.target.decode("latin-1")
    return UpgradeRequest(reader.method, target, headers, reader.version, reader.has_valid_host)


def check_http(request: UpgradeRequest) -> None:
    """Raises HandshakeError if this is no request of HTTP/1.1 as it must be (RFC 9112 section 3.2), whatever it asks.

    HTTP/1.0 has no upgrade (RFC 6455 section 4.1). The Host must not be empty, either (section 4.2.1).
    """
    if request.version != "1.1":
        raise _bad("a WebSocket starts with a request of HTTP/1.1")
    if not request.has_valid_host or not request.host:
        raise _bad("there must be one Host header, and a valid one")


def accept_key(request: UpgradeRequest) -> str:
    """The value of Sec-WebSocket-Accept that answers this request. Raises HandshakeError if it is no handshake."""
    check_http(request)
    headers = request.headers
    if request.method != "GET":
        raise _bad("a WebSocket starts with a GET request", HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET"))
    if not _names(headers.get("upgrade", ""), "websocket"):
        raise _bad("the Upgrade header must say websocket")
    if not _names(headers.get("connection", ""), "upgrade"):
        raise _bad("the Connection header must say upgrade")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _bad("the request must not have a body")
    if headers.get("sec-websocket-version") != "13":
        raise _bad("WebSocket version 13 is spoken here", HTTPStatus.UPGRADE_REQUIRED, ("Sec-WebSocket-Version", "13"))
    key = headers.get("sec-websocket-key", "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if not valid:
        raise _bad("Sec-WebSocket-Key must be 16 bytes in base64")
    digest = sha1(key.encode("ascii") + _ACCEPT_SUFFIX, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def accept_response(key: str, subprotocol: str, extension: str = "") -> bytes:
    """The answer that turns the connection into a WebSocket; an empty subprotocol or extension is not mentioned."""
    extensions = f"Sec-WebSocket-Extensions: {extension}\r\n" if extension else ""
    protocol = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {key}\r\n{protocol}{extensions}\r\n"
    ).encode("latin-1")


def refusal_response(refusal: ErrorResponse) -> bytes:
    """A plain HTTP response, after which the connection is closed."""
    body = refusal.text.encode() + b"\n"
    extra = "".join(f"{name}: {value}\r\n" for name, value in refusal.headers)
    head = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body


def _bad(text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST, *headers: tuple[str, str]) -> HandshakeError:
    return HandshakeError(ErrorResponse(int(status), "bad", text, headers))


def _tokens(value: str) -> tuple[str, ...]:
    """The members of a comma-separated header."""
    if not value:
        return ()
    return tuple(token for part in value.split(",") if (token := part.strip(" \t")))


def _names(value: str, token: str) -> bool:
    """Whether a comma-separated header has this member, in any case; usually it is the only one."""
    value = value.lower()
    return value == token or token in _tokens(value)
