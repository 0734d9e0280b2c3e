"""The server API over HTTP: a bare ASGI callable, because a framework would cost more than the calls themselves.

`POST /api/<method>` takes a JSON object and answers `{"result":…}` or `{"error":…}`, with status 200 unless the
request asks for error mode `transport`. `POST /api` takes lines of `{"method":…,"params":…}` and answers in lines.
The OpenAPI document and the page to read it need no key. After section 20 of the protocol's reference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from beaconfire.api.assets import ASSETS
from beaconfire.api.context import api_error
from beaconfire.api.decoding import UnreadableError, unreadable
from beaconfire.api.methods import METHODS, ApiMethods
from beaconfire.api.openapi import STATUSES
from beaconfire.api.options import ApiOptions
from beaconfire.api.requests import BatchResult, Result
from beaconfire.api.responses import CLOSE, JSON_HEADERS, ApiRefused, Response, plain
from beaconfire.base.errors import (
    BAD_REQUEST,
    INTERNAL,
    UNAUTHORIZED,
    CommandError,
)
from beaconfire.base.request_body import (
    BODY_PAUSE_MAX_S,
    BodyPausedError,
    BodyTooLargeError,
    ClientGoneError,
    Receive,
    read_body,
)
from beaconfire.model.events import LimitHit, report_error
from beaconfire.protocols.json_payload import NotJSONError, read

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
Source = bytes | Receive
"""Where a request's body comes from: it is there already, or has to be waited for."""

_PREFIX: Final = "/api"
CALL_PATHS: Final = tuple(f"{_PREFIX}/{method}" for method in METHODS)
"""Where calls are made, one method each."""

_ERROR_MODES: Final = (b"x-centrifugo-error-mode", b"x-beaconfire-error-mode")
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")
_encode: Final = msgspec.json.Encoder().encode


class Keys(Protocol):
    """Which API keys are right."""

    def accepts(self, candidate: str) -> bool:
        """In a time that tells nothing about the right ones."""


class Line(Struct, frozen=True):
    """One command of the older way to call, at `POST /api`."""

    method: str
    params: Raw | UnsetType = UNSET


_decode_lines: Final = msgspec.json.Decoder(Line).decode_lines


class Head(NamedTuple):
    """What matters of a request's head. `body_size` is -1 if it is not said."""

    keys: Sequence[str]
    statuses: bool
    body_size: int


class ApiHttp:
    """Everything at and under `/api`, mounted with or without that prefix in `root_path`.

    It has two doors, which differ in how a body comes and an answer goes, and in nothing else: it is an ASGI
    application, and a server that has read a whole call and wants no ASGI for it asks `answer`.
    """

    def __init__(
        self, methods: ApiMethods, keys: Keys, options: ApiOptions, body_pause_max_s: float = BODY_PAUSE_MAX_S
    ) -> None:
        self._methods = methods
        self._keys = keys
        self._options = options
        self._body_pause_max_s = body_pause_max_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403
            return
        verb = scope["method"]
        try:
            response = await self._answer(verb, _path(scope), scope.get("query_string", b""), scope["headers"], receive)
        except ClientGoneError:
            return
        body = response.body
        headers = [*response.headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body if verb != "HEAD" else b""})

    async def answer(self, path: str, query: bytes, headers: Headers, body: bytes) -> Response:
        """The answer to a POST to one of `CALL_PATHS`, names of `headers` being in lower case.

        Suspends only where an engine does, and does not raise.
        """
        return await self._answer("POST", path[len(_PREFIX) :], query, headers, body)

    async def _answer(self, verb: str, path: str, query: bytes, headers: Headers, source: Source) -> Response:
        """Raises ClientGoneError if nobody is there any more who could send the body, and nothing else."""
        try:
            if verb == "POST" and (path not in ASSETS or path == "/"):
                return await self._post(path, _read_head(query, headers), source)
            return _document(path, verb)
        except ApiRefused as refused:
            return refused.response
        except ClientGoneError:
            raise
        except Exception as error:  # noqa: BLE001 - reported, and answered in the API's own words
            report_error(self._methods.events, "api http", error)
            return _failed(CommandError(INTERNAL), 500)

    # Calls

    async def _post(self, path: str, head: Head, source: Source) -> Response:
        if not self._options.insecure and not any(map(self._keys.accepts, head.keys)):
            raise ApiRefused(_unauthorized())
        if path in ("", "/"):
            return await self._call_lines(await self._body(source, head.body_size), head.statuses)
        method = path[1:]
        if method not in METHODS:
            return await self._call(method, b"{}", 404)
        body = await self._body(source, head.body_size)
        return await self._call(method, body or b"{}", None if head.statuses else 200)

    async def _call(self, method: str, params: bytes, status: int | None) -> Response:
        """`status` is that of an error; None takes it from the table."""
        try:
            return Response(200, _encode_result(await self._methods.call(method, params)))
        except UnreadableError as error:
            return plain(400, f"The request body is not JSON: {error.detail}")
        except CommandError as error:
            return _failed(error, status or STATUSES.get(error.code.code, 500))

    async def _call_lines(self, body: bytes, statuses: bool) -> Response:
        """The older way. With one command only, its error's status can be that of the answer."""
        try:
            lines = read(_decode_lines, body)
        except NotJSONError as error:
            why = unreadable(str(error), body)
            return plain(400, f'The request body is not lines of {{"method": …, "params": …}}: {why}')
        batch_max = self._options.batch_max
        if not 0 < len(lines) <= batch_max:
            if lines:
                self._methods.events.emit(LimitHit("api.batch_max", ""))
            return _failed(
                CommandError(BAD_REQUEST, f"expected 1 to {batch_max} commands, got {len(lines)}"),
                STATUSES[BAD_REQUEST.code] if statuses else 200,
            )
        responses: list[Response] = []
        size = 0
        methods = self._methods
        started_s = methods.now_s()
        for line in lines:
            started_s = await methods.turns.yield_after_slice(started_s)
            responses.append(await self._call_line(line, size, None if statuses else 200))
            size += len(responses[-1].body)
        status = responses[0].status if len(responses) == 1 else 200
        return Response(status, b"\n".join(response.body for response in responses))

    async def _call_line(self, line: Line, size: int, status: int | None) -> Response:
        """`size` is that of the answer so far, in bytes."""
        try:
            self._methods.check_room(size)
        except CommandError as error:
            return _failed(error, 200)
        return await self._call(line.method, _params(line), status)

    async def _body(self, source: Source, declared: int) -> bytes:
        limit = int(self._options.request_max_size)
        if declared > limit or (isinstance(source, bytes) and len(source) > limit):
            raise self._too_large(limit)
        return source if isinstance(source, bytes) else await self._read_body(source, limit)

    async def _read_body(self, receive: Receive, limit: int) -> bytes:
        try:
            return await read_body(receive, limit, self._body_pause_max_s)
        except BodyTooLargeError:
            raise self._too_large(limit) from None
        except BodyPausedError:
            self._methods.events.emit(LimitHit("body_pause_max", ""))
            text = f"The request body paused for more than {self._body_pause_max_s:g} seconds."
            raise ApiRefused(plain(408, text, CLOSE)) from None

    def _too_large(self, limit: int) -> ApiRefused:
        self._methods.events.emit(LimitHit("api.request_max_size", ""))
        text = f"The request body is larger than {limit} bytes (api.request_max_size)."
        return ApiRefused(plain(413, text, CLOSE))


def _path(scope: Scope) -> str:
    """What follows `/api`: empty, or with a slash in front."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    if path == _PREFIX or path.startswith(_PREFIX + "/"):
        path = path[len(_PREFIX) :]
    return path


def _document(path: str, verb: str) -> Response:
    """What needs no key: documents, and which verbs there are."""
    allowed = "GET, HEAD, OPTIONS" if path in ASSETS else "POST, OPTIONS"
    if path in ("", "/"):
        allowed = "GET, HEAD, POST, OPTIONS"
    allow = (b"allow", allowed.encode())
    if verb == "OPTIONS":
        return Response(204, b"", (allow,))
    if verb not in allowed.split(", "):
        return plain(405, f"{verb[:16]} is not allowed here. Allowed: {allowed}.", allow)
    # Relative, so that it is right behind a proxy that adds a prefix.
    return ASSETS[path]() if path else plain(308, "See api/", (b"location", b"api/"))


def _read_head(query: bytes, headers: Headers) -> Head:
    """At most one key of each kind, so that nobody can have thousands compared at once."""
    fields = dict(headers)
    keys: list[str] = []
    if (key := fields.get(b"x-api-key")) is not None:
        keys.append(key.decode("utf-8", "surrogateescape"))
    if (authorization := fields.get(b"authorization")) is not None:
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() == b"apikey":
            keys.append(key.strip().decode("utf-8", "surrogateescape"))
    if b"api_key=" in query:
        keys += parse_qs(query.decode("latin-1")).get("api_key", [])[:1]
    statuses = False
    for name in _ERROR_MODES:
        if name in fields:
            statuses = statuses or fields[name].strip().lower() == b"transport"
    length = fields.get(b"content-length", b"")
    return Head(keys, statuses, int(length) if length.isdigit() else -1)


def _params(line: Line) -> bytes:
    params = b"" if line.params is UNSET else bytes(line.params)
    return b"{}" if params in (b"", b"null") else params


def _encode_result(result: Result) -> bytes:
    body = _encode(result if type(result) is BatchResult else {"result": result})
    # A payload may be written over several lines; where answers come in lines it must not.
    return body.translate(_LINE_BREAKS) if b"\n" in body or b"\r" in body else body


def _failed(error: CommandError, status: int) -> Response:
    return Response(status, _encode({"error": api_error(error)}))


def _unauthorized() -> Response:
    ways = "send a key as X-API-Key: <key>, as Authorization: apikey <key>, or as ?api_key=<key>"
    body = _failed(CommandError(UNAUTHORIZED, f"no right API key: {ways}"), 401).body
    return Response(401, body, (*JSON_HEADERS, (b"www-authenticate", b"apikey")))
