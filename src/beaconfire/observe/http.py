"""Counts, times and logs HTTP requests by route template.

The path itself is never a label or a log field: clients may request any path, and a path may contain secrets. For the
same reason the query string is never read.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from beaconfire.base.clock import Clock, SystemClock
from beaconfire.base.route_path import route_path
from beaconfire.observe.logs import get_logger
from beaconfire.observe.metric_table import OTHER
from beaconfire.observe.metrics import MetricsSink

QUIET_PATHS = ("/health", "/health/live", "/health/ready", "/metrics")
"""Machines request these paths every few seconds: successful requests are logged at debug level."""

CLIENT_CLOSED_REQUEST = 499
"""The recorded status if the client closed the connection, or the request was cancelled, before a response began.

nginx uses this number, too.
"""

Headers = Sequence[tuple[bytes, bytes]]

_PARAMETER = re.compile(r"\{\w+(:path)?\}")


class RequestRecorder:
    """Records finished requests, for the ASGI middleware below and for code that answers requests without ASGI."""

    def __init__(
        self,
        metrics: MetricsSink,
        templates: Iterable[str],
        quiet: Collection[str] = QUIET_PATHS,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        """`templates` are the known routes: exact paths, or paths with `{name}` for one segment and `{name:path}` for
        any number of segments. Every other path is recorded as `other`. `quiet` are the templates whose successful
        requests are logged at debug level. Create the recorder after `logs.configure`.
        """
        self._metrics = metrics
        self._log: FilteringBoundLogger = (logger or get_logger()).bind()
        self._debug = self._log.is_enabled_for(logging.DEBUG)
        self._quiet = frozenset(quiet)
        templates = tuple(templates)
        self._exact = {template: template for template in templates if "{" not in template}
        self._patterns = [(_pattern(template), template) for template in templates if "{" in template]

    def template(self, path: str) -> str:
        """The template of a path: exact templates first, then the others in order; `other` if none fits."""
        found = self._exact.get(path)
        if found is not None:
            return found
        for pattern, template in self._patterns:
            if pattern.fullmatch(path):
                return template
        return OTHER

    def record(self, method: str, path: str, status: int, duration_s: float, address: str = "") -> None:
        """Records one request. `path` is as requested, without the query; `address` is the address of the client."""
        template = self.template(path)
        self._metrics.count_request(method, template, status, duration_s)
        ok = status < 400
        quiet = ok and template in self._quiet
        if quiet and not self._debug:
            return  # most requests: build no fields for a line that would not be written
        level = logging.WARNING if status >= 500 else logging.DEBUG if quiet else logging.INFO
        self._log.log(
            level,
            "http_request",
            status="ok" if ok else "error",
            duration_ms=round(duration_s * 1000, 3),
            method=method,
            path=template,
            code=status,
            address=address,
        )


class RequestObserver:
    """The outermost ASGI middleware: records each request. Changes and buffers nothing.

    The duration ends when the application returns; for a stream it is the whole lifetime. An exception of the
    application is recorded as status 500, even after a response began, and is raised again.
    """

    def __init__(self, app: ASGIApp, recorder: RequestRecorder, clock: Clock | None = None) -> None:
        self.app = app
        self._recorder = recorder
        self._clock = clock or SystemClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0
        status_without_response = 500

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def receive_observed() -> Message:
            nonlocal status_without_response
            message = await receive()
            if message["type"] == "http.disconnect":
                status_without_response = CLIENT_CLOSED_REQUEST
            return message

        path = route_path(scope)  # before the application, whose routers may change the scope
        started_s = self._clock.now_s()
        try:
            await self.app(scope, receive_observed, send_observed)
        except asyncio.CancelledError:
            status = status or CLIENT_CLOSED_REQUEST
            raise
        except Exception:
            status = 500
            raise
        finally:
            client = scope.get("client")
            self._recorder.record(
                scope["method"],
                path,
                status or status_without_response,
                self._clock.now_s() - started_s,
                client[0] if client else "",
            )


class ObservedResponse(Protocol):
    """The part of a response that is recorded."""

    @property
    def status(self) -> int: ...


ResponseT = TypeVar("ResponseT", bound=ObservedResponse)


class DirectPostObserver(Generic[ResponseT]):
    """Records POST requests that are answered without ASGI. The duration ends when the response is built."""

    def __init__(
        self,
        answer: Callable[[str, bytes, Headers, bytes], Awaitable[ResponseT]],
        recorder: RequestRecorder,
        clock: Clock | None = None,
    ) -> None:
        """`answer` gets the path, the query, the headers and the body."""
        self._answer = answer
        self._recorder = recorder
        self._clock = clock or SystemClock()

    async def __call__(self, path: str, query: bytes, headers: Headers, body: bytes, address: str) -> ResponseT:
        status = 500
        started_s = self._clock.now_s()
        try:
            response = await self._answer(path, query, headers, body)
            status = response.status
            return response
        except asyncio.CancelledError:
            status = CLIENT_CLOSED_REQUEST
            raise
        finally:
            self._recorder.record("POST", path, status, self._clock.now_s() - started_s, address)


def _pattern(template: str) -> re.Pattern[str]:
    parts: list[str] = []
    end = 0
    for parameter in _PARAMETER.finditer(template):
        parts.append(re.escape(template[end : parameter.start()]))
        parts.append(".*" if parameter[1] else "[^/]+")
        end = parameter.end()
    return re.compile("".join(parts) + re.escape(template[end:]))
