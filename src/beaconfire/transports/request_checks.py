"""Checks of HTTP requests for streams, polls and emulation: the origins and limits of WebSockets, and CORS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    CONNECTION_EXPIRED,
    INVALID_TOKEN,
    DisconnectCode,
)
from beaconfire.base.request_body import BodyTimeoutError, BodyTooLargeError, read_body
from beaconfire.model.events import EventSink, HandshakeRefused, LimitHit
from beaconfire.transports.origins import OriginRules
from beaconfire.transports.port import Admit, ErrorResponse

PREFLIGHT_MAX_AGE_S: Final = 300
"""How long a browser may cache the response to a preflight request."""

_FOREIGN_ORIGIN: Final = ErrorResponse(403, "origin", "this origin may not connect")


_STATUSES: Final = {BAD_PROTOCOL.code: 400, INVALID_TOKEN.code: 401, CONNECTION_EXPIRED.code: 401}


def http_status(code: DisconnectCode) -> int:
    """The HTTP status for a session that ended before it sent anything.

    503 if the client may repeat the request, otherwise 400, 401 (another token may work) or 403.
    """
    return _STATUSES.get(code.code) or (503 if code.reconnect else 403)


class RequestRefused(Exception):
    """The request gets this response, and has no other effect."""

    def __init__(self, response: ErrorResponse) -> None:
        super().__init__(response.text)
        self.response = response


class RequestChecks:
    """Checks requests in this order: method, origin, size of the body, and the endpoint's own conditions."""

    def __init__(self, origins: Sequence[str], admit: Admit, events: EventSink) -> None:
        self._origins = OriginRules(origins)
        self._events = events
        self.admit = admit

    def cors(self, request: Request) -> dict[str, str]:
        """The headers that let a page of an allowed origin read the response; empty without an Origin header."""
        origin = _origin(request)
        if origin is None or not self._origins.allow(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Origin",
        }

    def preflight(self, request: Request, methods: Sequence[str]) -> Response:
        """The response to OPTIONS. It permits `methods`, and all headers that the page requests."""
        headers = {
            **self.cors(request),
            "Access-Control-Allow-Methods": _with_options(methods),
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
        }
        if requested := request.headers.get("access-control-request-headers"):
            headers["Access-Control-Allow-Headers"] = requested
        return Response(status_code=204, headers=headers)

    def check(self, request: Request, methods: Sequence[str]) -> None:
        """Raises RequestRefused for a method that is not in `methods`, and for an origin that is not allowed."""
        if request.method not in methods:
            allowed = _with_options(methods)
            text = f"{request.method[:16]} is not allowed here. Allowed: {allowed}."
            raise RequestRefused(ErrorResponse(405, "bad", text, (("Allow", allowed),)))
        if not self._origins.allow(_origin(request)):
            raise RequestRefused(_FOREIGN_ORIGIN)

    async def body(self, request: Request, size_max: int, limit: str) -> bytes:
        """Reads the whole body. `limit` is the name of the limit `size_max`.

        Raises RequestRefused (413 beyond the limit, 408 if the client pauses for too long) or
        ClientDisconnectedError.
        """
        try:
            if int(request.headers.get("content-length", "0")) > size_max:  # the server has checked that it is a number
                raise BodyTooLargeError
            return await read_body(request.receive, size_max)
        except BodyTooLargeError:
            text = f"The request body is larger than {size_max} bytes ({limit})."
            raise self.limit_reached(limit, ErrorResponse(413, "bad", text, (("Connection", "close"),))) from None
        except BodyTimeoutError:
            text = "The request body paused for too long."
            raise self.limit_reached(
                "body_pause_max", ErrorResponse(408, "bad", text, (("Connection", "close"),))
            ) from None

    def limit_reached(self, limit: str, response: ErrorResponse) -> RequestRefused:
        """Counts that a limit was hit, and returns the exception to raise for the request."""
        self.count(limit)
        return RequestRefused(response)

    def count(self, limit: str) -> None:
        """Counts that a limit was hit."""
        self._events.emit(LimitHit(limit, ""))

    def refuse(self, request: Request, response: ErrorResponse) -> Response:
        """Makes the response to a refused request, which is reported as `HandshakeRefused`."""
        self._events.emit(HandshakeRefused(request.url.path, response.status, response.reason))
        headers = {**self.cors(request), **dict(response.headers)}
        return PlainTextResponse(response.text + "\n", response.status, headers)


def _with_options(methods: Sequence[str]) -> str:
    """The value of a header that lists the methods. Every endpoint answers OPTIONS as well."""
    return ", ".join([*methods, "OPTIONS"])


def _origin(request: Request) -> str | None:
    """The Origin header. Repeated headers are joined, as `OriginRules.allow` expects."""
    return ", ".join(request.headers.getlist("origin")) if "origin" in request.headers else None
