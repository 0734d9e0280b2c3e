"""Who may open a stream or speak in one: the same origins and limits as for WebSockets, and CORS for browsers."""

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
from beaconfire.transports.port import Admit, Refusal

PREFLIGHT_MAX_AGE_S: Final = 300
"""How long a browser may remember that a path may be asked from elsewhere."""

_FOREIGN_ORIGIN: Final = Refusal(403, "origin", "this origin may not connect")


_STATUSES: Final = {BAD_PROTOCOL.code: 400, INVALID_TOKEN.code: 401, CONNECTION_EXPIRED.code: 401}


def http_status(code: DisconnectCode) -> int:
    """The status for a session that ended before it could answer: 400, 401 (with another token it may work) or 403 if
    there is no use in asking again like that, 503 if there is.
    """
    return _STATUSES.get(code.code) or (503 if code.reconnect else 403)


class RequestRefused(Exception):
    """The request gets this answer, and nothing else happens."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class RequestChecks:
    """Judges requests in this order: method, origin, size of the body, and whatever the endpoint itself asks."""

    def __init__(self, origins: Sequence[str], admit: Admit, events: EventSink) -> None:
        self._origins = OriginRules(origins)
        self._events = events
        self.admit = admit

    def cors(self, request: Request) -> dict[str, str]:
        """What lets a page of an allowed origin read the answer; nothing for requests of no page."""
        origin = _origin(request)
        if origin is None or not self._origins.allow(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Origin",
        }

    def preflight(self, request: Request, methods: str) -> Response:
        """The answer to OPTIONS: whatever headers the page wants to send, it may."""
        headers = {
            **self.cors(request),
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
        }
        if wanted := request.headers.get("access-control-request-headers"):
            headers["Access-Control-Allow-Headers"] = wanted
        return Response(status_code=204, headers=headers)

    def check(self, request: Request, methods: Sequence[str]) -> None:
        """Raises RequestRefused for a method that is none of these, and for a page of a foreign origin."""
        if request.method not in methods:
            allowed = ", ".join([*methods, "OPTIONS"])
            text = f"{request.method[:16]} is not allowed here. Allowed: {allowed}."
            raise RequestRefused(Refusal(405, "bad", text, (("Allow", allowed),)))
        if not self._origins.allow(_origin(request)):
            raise RequestRefused(_FOREIGN_ORIGIN)

    async def body(self, request: Request, size_max: int, limit: str) -> bytes:
        """The whole body. Raises RequestRefused: 413 beyond the limit of that name, 408 if nothing comes for too long;
        and ClientDisconnectedError.
        """
        try:
            if int(request.headers.get("content-length", "0")) > size_max:  # the server has checked that it is a number
                raise BodyTooLargeError
            return await read_body(request.receive, size_max)
        except BodyTooLargeError:
            text = f"The request body is larger than {size_max} bytes ({limit})."
            raise self.beyond(limit, Refusal(413, "bad", text, (("Connection", "close"),))) from None
        except BodyTimeoutError:
            text = "The request body paused for too long."
            raise self.beyond("body_pause_max", Refusal(408, "bad", text, (("Connection", "close"),))) from None

    def beyond(self, limit: str, refusal: Refusal) -> RequestRefused:
        """What to raise for a request beyond a limit, which is counted."""
        self.count(limit)
        return RequestRefused(refusal)

    def count(self, limit: str) -> None:
        """Counts that a limit was hit."""
        self._events.emit(LimitHit(limit, ""))

    def refuse(self, request: Request, refusal: Refusal) -> Response:
        """The answer to a request that is refused, which is reported as `HandshakeRefused`."""
        self._events.emit(HandshakeRefused(request.url.path, refusal.status, refusal.reason))
        headers = {**self.cors(request), **dict(refusal.headers)}
        return PlainTextResponse(refusal.text + "\n", refusal.status, headers)


def _origin(request: Request) -> str | None:
    """The Origin header; repeated ones joined, as `OriginRules.allow` wants them."""
    return ", ".join(request.headers.getlist("origin")) if "origin" in request.headers else None
