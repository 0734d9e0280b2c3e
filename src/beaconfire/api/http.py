"""The server API over HTTP (section 20 of the protocol reference), as an ASGI application without a framework, which
would take more time than the calls themselves.

* `POST /api/<method>` takes a JSON object and returns `{"result":…}` or `{"error":…}`. The status is 200, unless the
  request selects error mode `transport`.
* `POST /api` takes lines of `{"method":…,"params":…}` and returns one line for each.
* The OpenAPI document and the reference page need no API key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from beaconfire.api.context import api_error
from beaconfire.api.decoding import InvalidJsonError, describe_json_error
from beaconfire.api.documents import PATHS as DOCUMENT_PATHS
from beaconfire.api.documents import load_documents
from beaconfire.api.messages.calls import BatchResult
from beaconfire.api.messages.common import ApiResult
from beaconfire.api.methods import METHODS, ApiMethods
from beaconfire.api.openapi import STATUSES
from beaconfire.api.options import ApiOptions
from beaconfire.api.responses import CLOSE, JSON_HEADERS, Response, ResponseError, text_response
from beaconfire.base.errors import (
    BAD_REQUEST,
    INTERNAL,
    UNAUTHORIZED,
    CommandError,
)
from beaconfire.base.request_body import (
    BODY_PAUSE_MAX_S,
    BodyTimeoutError,
    BodyTooLargeError,
    ClientDisconnectedError,
    Receive,
    read_body,
)
from beaconfire.base.route_path import route_path
from beaconfire.model.events import LimitHit, report_error
from beaconfire.protocols.json_payload import NotJSONError, decode_json

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
BodySource = bytes | Receive
"""The body of a request, or the ASGI callable from which it can be read."""

_PREFIX: Final = "/api"
CALL_PATHS: Final = tuple(f"{_PREFIX}/{method}" for method in METHODS)
"""The paths of all methods."""

_LONG_PATHS: Final = frozenset({f"{_PREFIX}/batch", f"{_PREFIX}/broadcast"})

_ERROR_MODES: Final = (b"x-centrifugo-error-mode", b"x-beaconfire-error-mode")
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")
_encode: Final = msgspec.json.Encoder().encode


class KeyChecker(Protocol):
    """Checks API keys."""

    def accepts(self, candidate: str) -> bool:
        """Whether the key is valid. The time of the check does not depend on the valid keys."""


class LineCommand(Struct, frozen=True):
    """One line of `POST /api`."""

    method: str
    params: Raw | UnsetType = UNSET


_decode_lines: Final = msgspec.json.Decoder(LineCommand).decode_lines


class RequestHead(NamedTuple):
    """The relevant headers and query parameters of a request.

    `error_statuses` tells whether errors have their own HTTP status (error mode `transport`). `body_size` is the
    declared size of the body in bytes, or -1 if it is unknown.
    """

    keys: Sequence[str]
    error_statuses: bool
    body_size: int


class ApiHttp:
    """Serves `/api` and all paths below.

    It may be mounted at `/api`, with the prefix in ASGI's `root_path`, or get full paths.

    There are two entry points with the same behaviour: the object is an ASGI application, and `handle_post` handles a
    complete request without ASGI.
    """

    def __init__(
        self, methods: ApiMethods, keys: KeyChecker, options: ApiOptions, body_pause_max_s: float = BODY_PAUSE_MAX_S
    ) -> None:
        self._methods = methods
        self._keys = keys
        self._options = options
        self._body_pause_max_s = body_pause_max_s
        self._documents = load_documents()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # Closing before accepting sends HTTP 403.
            return
        verb = scope["method"]
        try:
            response = await self._respond(
                verb, _path(scope), scope.get("query_string", b""), scope["headers"], receive
            )
        except ClientDisconnectedError:
            return
        body = response.body
        headers = [*response.headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": body if verb != "HEAD" else b""})

    def never_suspends(self, path: str) -> bool:
        """Whether `handle_post` runs in one step for this path.

        Methods with many steps let other work run in between.
        """
        return path not in _LONG_PATHS and not self._methods.may_suspend

    async def handle_post(self, path: str, query: bytes, headers: Headers, body: bytes) -> Response:
        """Returns the response to a POST to one of `CALL_PATHS`. The names of `headers` are in lower case.

        Never raises. For when it suspends see `never_suspends`.
        """
        return await self._respond("POST", path[len(_PREFIX) :], query, headers, body)

    async def _respond(self, verb: str, path: str, query: bytes, headers: Headers, source: BodySource) -> Response:
        """Raises only ClientDisconnectedError: the client closed the connection before the end of the body."""
        try:
            if verb == "POST" and (path not in DOCUMENT_PATHS or path == "/"):
                return await self._post(path, _read_head(query, headers), source)
            return self._document(path, verb)
        except ResponseError as error:
            return error.response
        except ClientDisconnectedError:
            raise
        except Exception as error:  # noqa: BLE001 - the client gets error 100, and the node reports the exception
            report_error(self._methods.events, "api http", error)
            return _failed(CommandError(INTERNAL), 500)

    # Documents

    def _document(self, path: str, verb: str) -> Response:
        """Handles all requests that need no API key: documents and OPTIONS."""
        allowed = "GET, HEAD, OPTIONS" if path in DOCUMENT_PATHS else "POST, OPTIONS"
        if path in ("", "/"):
            allowed = "GET, HEAD, POST, OPTIONS"
        allow = (b"allow", allowed.encode())
        if verb == "OPTIONS":
            return Response(204, b"", (allow,))
        if verb not in allowed.split(", "):
            return text_response(405, f"{verb[:16]} is not allowed here. Allowed: {allowed}.", allow)
        # A relative redirect also works behind a proxy that adds a prefix.
        return self._documents[path] if path else text_response(308, "See api/", (b"location", b"api/"))

    # Calls

    async def _post(self, path: str, head: RequestHead, source: BodySource) -> Response:
        if not self._options.insecure and not any(map(self._keys.accepts, head.keys)):
            raise ResponseError(_unauthorized())
        if path in ("", "/"):
            return await self._call_lines(await self._body(source, head.body_size), head.error_statuses)
        method = path[1:]
        if method not in METHODS:
            return await self._call(method, b"{}", 404)
        body = await self._body(source, head.body_size)
        return await self._call(method, body or b"{}", None if head.error_statuses else 200)

    async def _call(self, method: str, params: bytes, status: int | None) -> Response:
        """Calls a method. `status` is the HTTP status of an error; None takes it from `STATUSES`."""
        try:
            return Response(200, _encode_result(await self._methods.call(method, params)))
        except InvalidJsonError as error:
            return text_response(400, f"The request body is not JSON: {error.detail}")
        except CommandError as error:
            return _failed(error, status or STATUSES.get(error.code.code, 500))

    async def _call_lines(self, body: bytes, error_statuses: bool) -> Response:
        """Handles `POST /api`. The response has the status of an error only if there is a single command."""
        try:
            lines = decode_json(_decode_lines, body)
        except NotJSONError as error:
            why = describe_json_error(str(error), body)
            return text_response(400, f'The request body must be lines of {{"method": …, "params": …}}: {why}')
        batch_max = self._options.batch_max
        if not 0 < len(lines) <= batch_max:
            if lines:
                self._methods.events.emit(LimitHit("api.batch_max", ""))
            return _failed(
                CommandError(BAD_REQUEST, f"expected 1 to {batch_max} commands, got {len(lines)}"),
                STATUSES[BAD_REQUEST.code] if error_statuses else 200,
            )
        responses: list[Response] = []
        size = 0
        methods = self._methods
        started_s = methods.now_s()
        for line in lines:
            started_s = await methods.turns.yield_after_slice(started_s)
            responses.append(await self._call_line(line, size, None if error_statuses else 200))
            size += len(responses[-1].body)
        status = responses[0].status if len(responses) == 1 else 200
        return Response(status, b"\n".join(response.body for response in responses))

    async def _call_line(self, line: LineCommand, size: int, status: int | None) -> Response:
        """Executes one line. `size` is the size in bytes of all responses so far."""
        try:
            self._methods.check_space(size)
        except CommandError as error:
            return _failed(error, 200)
        return await self._call(line.method, _params(line), status)

    async def _body(self, source: BodySource, declared: int) -> bytes:
        limit = int(self._options.request_max_size)
        if declared > limit or (isinstance(source, bytes) and len(source) > limit):
            raise self._too_large(limit)
        return source if isinstance(source, bytes) else await self._read_body(source, limit)

    async def _read_body(self, receive: Receive, limit: int) -> bytes:
        try:
            return await read_body(receive, limit, self._body_pause_max_s)
        except BodyTooLargeError:
            raise self._too_large(limit) from None
        except BodyTimeoutError:
            self._methods.events.emit(LimitHit("body_pause_max", ""))
            text = f"The request body paused for more than {self._body_pause_max_s:g} seconds."
            raise ResponseError(text_response(408, text, CLOSE)) from None

    def _too_large(self, limit: int) -> ResponseError:
        self._methods.events.emit(LimitHit("api.request_max_size", ""))
        text = f"The request body is larger than {limit} bytes (api.request_max_size)."
        return ResponseError(text_response(413, text, CLOSE))


def _path(scope: Scope) -> str:
    """The path below `/api`: empty, or with a leading slash."""
    path = route_path(scope)
    if path == _PREFIX or path.startswith(_PREFIX + "/"):
        path = path[len(_PREFIX) :]
    return path


def _read_head(query: bytes, headers: Headers) -> RequestHead:
    """Reads at most one API key of each kind, so that a request cannot cause thousands of comparisons."""
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
    error_statuses = False
    for name in _ERROR_MODES:
        if name in fields:
            error_statuses = error_statuses or fields[name].strip().lower() == b"transport"
    length = fields.get(b"content-length", b"")
    return RequestHead(keys, error_statuses, int(length) if length.isdigit() else -1)


def _params(line: LineCommand) -> bytes:
    params = b"" if line.params is UNSET else bytes(line.params)
    return b"{}" if params in (b"", b"null") else params


def _encode_result(result: ApiResult) -> bytes:
    body = _encode(result if type(result) is BatchResult else {"result": result})
    # A payload may contain line breaks, but each response of `POST /api` must be one line.
    return body.translate(_LINE_BREAKS) if b"\n" in body or b"\r" in body else body


def _failed(error: CommandError, status: int) -> Response:
    return Response(status, _encode({"error": api_error(error)}))


def _unauthorized() -> Response:
    ways = "send the key as X-API-Key: <key>, as Authorization: apikey <key>, or as ?api_key=<key>"
    body = _failed(CommandError(UNAUTHORIZED, f"no valid API key: {ways}"), 401).body
    return Response(401, body, (*JSON_HEADERS, (b"www-authenticate", b"apikey")))
