"""The opening handshake: reads and checks the HTTP request and makes the response (RFC 6455 section 4.2). No I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from hashlib import sha1
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from beaconfire.model.handshake import decode_headers
from beaconfire.transports.port import ErrorResponse
from beaconfire.transports.request_reader import RequestReader
from beaconfire.transports.websocket_request import WebSocketRequest, split_tokens

_ACCEPT_SUFFIX = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class HandshakeError(Exception):
    """The request is not a valid or permitted opening handshake. The client gets `response`."""

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(f"{response.status} {response.text}")
        self.response = response


class UpgradeRequest(WebSocketRequest):
    """A client's request for a WebSocket, as the bytes of the connection contain it.

    - `version` is the version of HTTP: `1.1`.
    - `has_valid_host` says whether the request has exactly one Host field and it is valid.
    """

    __slots__ = ("has_valid_host", "method", "version")

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        version: str = "1.1",
        has_valid_host: bool = True,
    ) -> None:
        path, _, query = target.partition("?")
        super().__init__(unquote_to_bytes(path).decode(errors="replace") if "%" in path else path, query, headers)
        self.method = method
        self.version = version
        self.has_valid_host = has_valid_host

    @property
    def host(self) -> str:
        return self.headers.get("host", "")


def read_upgrade(data: bytes, size_max: int) -> tuple[UpgradeRequest, int] | None:
    """Reads a request for an upgrade at the start of `data`. Returns the request and the size of its head in bytes.

    None if `data` starts with anything else or with an incomplete head, or is larger than `size_max` bytes.
    """
    reader = RequestReader(size_max)
    try:
        if reader.feed(data) and reader.upgrade_offset:
            return upgrade_request(reader), reader.upgrade_offset
        return None
    finally:
        reader.close()


def upgrade_request(reader: RequestReader) -> UpgradeRequest:
    """Makes the request from a reader that has read its head."""
    target = reader.target.decode("latin-1")
    return UpgradeRequest(reader.method, target, decode_headers(reader.headers), reader.version, reader.has_valid_host)


def check_http(request: UpgradeRequest) -> None:
    """Raises HandshakeError unless this is a valid request of HTTP/1.1 (RFC 9112 section 3.2), for any path.

    HTTP/1.0 has no upgrade (RFC 6455 section 4.1), and the Host must not be empty (section 4.2.1).
    """
    if request.version != "1.1":
        raise _bad("a WebSocket request must use HTTP/1.1")
    if not request.has_valid_host or not request.host:
        raise _bad("the request must have one Host header, and a valid one")


def accept_key(request: UpgradeRequest) -> str:
    """The value of Sec-WebSocket-Accept for this request. Raises HandshakeError if it is not a valid handshake."""
    check_http(request)
    headers = request.headers
    if request.method != "GET":
        raise _bad("a WebSocket request must use GET", HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET"))
    if not _contains(headers.get("upgrade", ""), "websocket"):
        raise _bad("the Upgrade header must contain websocket")
    if not _contains(headers.get("connection", ""), "upgrade"):
        raise _bad("the Connection header must contain upgrade")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _bad("the request must not have a body")
    if headers.get("sec-websocket-version") != "13":
        raise _bad("the WebSocket version must be 13", HTTPStatus.UPGRADE_REQUIRED, ("Sec-WebSocket-Version", "13"))
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
    """The response that accepts the handshake. An empty subprotocol or extension adds no header."""
    extensions = f"Sec-WebSocket-Extensions: {extension}\r\n" if extension else ""
    protocol = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {key}\r\n{protocol}{extensions}\r\n"
    ).encode("latin-1")


def encode_error_response(response: ErrorResponse) -> bytes:
    """The bytes of an HTTP response, after which the connection is closed."""
    body = response.text.encode() + b"\n"
    extra = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
    head = (
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body


def _bad(text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST, *headers: tuple[str, str]) -> HandshakeError:
    return HandshakeError(ErrorResponse(int(status), "bad", text, headers))


def _contains(value: str, token: str) -> bool:
    """Whether a comma-separated header contains this token, in any case. Usually it is the only one."""
    value = value.lower()
    return value == token or token in split_tokens(value)
