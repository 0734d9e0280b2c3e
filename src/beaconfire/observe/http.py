"""HTTP requests counted, timed and logged, by route template.

The path itself never becomes a label or a field: anyone may ask for any path, and some people put secrets into one.
For the same reason the query string is not looked at at all.
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
from beaconfire.observe.logs import get_logger
from beaconfire.observe.metric_table import OTHER
from beaconfire.observe.metrics import MetricsSink

QUIET = ("/health", "/health/live", "/health/ready", "/metrics")
"""What machines ask for every few seconds: logged at debug level while it goes well."""

CLIENT_GONE = 499
"""Recorded when the client left, or the request was cancelled, before an answer began. It is nginx's number."""

Headers = Sequence[tuple[bytes, bytes]]

_PARAMETER = re.compile(r"\{\w+(:path)?\}")


class RequestRecorder:
    """Records finished requests, for the middleware below and for whoever answers requests without ASGI."""

    def __init__(
        self,
        metrics: MetricsSink,
        templates: Iterable[str],
        quiet: Collection[str] = QUIET,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        """`templates` are the routes there are: exact paths, or with `{name}` for one segment, `{name:path}` for any
        number of them. Every other path is recorded as `other`. Create it after `logs.configure`.
        """
        self._metrics = metrics
        self._log: FilteringBoundLogger = (logger or get_logger()).bind()
        self._debug = self._log.is_enabled_for(logging.DEBUG)
        self._quiet = frozenset(quiet)
        every = tuple(templates)
        self._exact = {template: template for template in every if "{" not in template}
        self._patterns = [(_pattern(template), template) for template in every if "{" in template]

    def template(self, path: str) -> str:
        """The route of a path, exact ones first, then in the order given; `other` for none."""
        found = self._exact.get(path)
        if found is not None:
            return found
        for pattern, template in self._patterns:
            if pattern.fullmatch(path):
                return template
        return OTHER

    def record(self, method: str, path: str, status: int, duration_s: float, address: str = "") -> None:
        """One request answered. `path` is as requested, without the query; `address` is the client's."""
        template = self.template(path)
        self._metrics.count_request(method, template, status, duration_s)
        good = status < 400
        quiet = good and template in self._quiet
        if quiet and not self._debug:
            return  # which is most of them: no fields are made for a line that nobody wants
        level = logging.WARNING if status >= 500 else logging.DEBUG if quiet else logging.INFO
        self._log.log(
            level,
            "http_request",
            status="ok" if good else "error",
            duration_ms=round(duration_s * 1000, 3),
            method=method,
            path=template,
            code=status,
            address=address,
        )


class ObserveRequests:
    """ASGI middleware around everything else. Adds nothing to a response and buffers nothing.

    The time is until the last byte was handed over, so that of a stream is its whole life. An exception that comes
    out of the application counts as 500, whatever had been sent by then, and goes on to the server.
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
        unanswered = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def note_leaving() -> Message:
            nonlocal unanswered
            message = await receive()
            if message["type"] == "http.disconnect":
                unanswered = CLIENT_GONE
            return message

        started_s = self._clock.now_s()
        try:
            await self.app(scope, note_leaving, note_status)
        except asyncio.CancelledError:
            status = status or CLIENT_GONE
            raise
        except Exception:
            status = 500
            raise
        finally:
            client = scope.get("client")
            self._recorder.record(
                scope["method"],
                scope["path"],
                status or unanswered,
                self._clock.now_s() - started_s,
                client[0] if client else "",
            )


class ObservedResponse(Protocol):
    """What is observed of an answer."""

    @property
    def status(self) -> int: ...


Answered = TypeVar("Answered", bound=ObservedResponse)


class ObserveDirectPosts(Generic[Answered]):
    """The same around whole answers to whole POST requests. The time is until the answer is made."""

    def __init__(
        self,
        answer: Callable[[str, bytes, Headers, bytes], Awaitable[Answered]],
        recorder: RequestRecorder,
        clock: Clock | None = None,
    ) -> None:
        """`answer` gets path, query, headers and body."""
        self._answer = answer
        self._recorder = recorder
        self._clock = clock or SystemClock()

    async def __call__(self, path: str, query: bytes, headers: Headers, body: bytes, address: str) -> Answered:
        status = 500
        started_s = self._clock.now_s()
        try:
            answer = await self._answer(path, query, headers, body)
            status = answer.status
            return answer
        except asyncio.CancelledError:
            status = CLIENT_GONE
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
