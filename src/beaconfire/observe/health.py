"""Health checks: liveness (does the process work?) and readiness (should it get traffic?).

They are separate, because they differ while the node starts or drains.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from beaconfire.observe.redaction import Redactor

Check: TypeAlias = Callable[[], str | None]
"""Checks one dependency. Returns None if it works, else the problem. Must not block and must not raise."""

Status: TypeAlias = Literal["ok", "starting", "draining", "failing"]

_NO_STORE = {"Cache-Control": "no-store"}


class HealthReport(Struct, frozen=True):
    """`checks` has an entry for each check: `ok` or the problem. Secrets are redacted, because the report is public."""

    status: Status
    checks: dict[str, str]

    @property
    def ok(self) -> bool:
        return self.status == "ok"


class Health:
    """The phase of the node, and its checks. Begins as `starting`; the node calls `started`, later `draining`."""

    def __init__(self) -> None:
        self._phase: Status = "starting"
        self._checks: dict[str, Check] = {}
        self._redactor = Redactor()

    def add_check(self, name: str, check: Check) -> None:
        """From now on readiness depends on `check`. Raises ValueError if the name (for example `engine`) exists."""
        if name in self._checks:
            raise ValueError(f"there is a health check named {name!r} already")
        self._checks[name] = check

    def started(self) -> None:
        """The node accepts connections now. Has no effect after `draining`."""
        if self._phase == "starting":
            self._phase = "ok"

    def draining(self) -> None:
        """The node shuts down: load balancers should send new clients to other nodes."""
        self._phase = "draining"

    def live(self) -> HealthReport:
        """Always ok: a process that answers does not need a restart.

        A failing dependency does not change this: a restart would not repair it, and would disconnect all clients.
        """
        return HealthReport("ok", {})

    def ready(self) -> HealthReport:
        """Ok if the node should get new clients: it has started, does not drain, and every check passes."""
        checks = {name: self._outcome(check) for name, check in self._checks.items()}
        failing = any(outcome != "ok" for outcome in checks.values())
        return HealthReport("failing" if self._phase == "ok" and failing else self._phase, checks)

    def routes(self, ready: Callable[[Request], Awaitable[Response]] | None = None) -> list[Route]:
        """The endpoints as Starlette routes: `/health`, `/health/live` and `/health/ready`, which is `ready` if given,
        for a node that is not the only one behind its address."""
        return [
            Route("/health", self.health_endpoint),
            Route("/health/live", self.live_endpoint),
            Route("/health/ready", ready or self.ready_endpoint),
        ]

    async def health_endpoint(self, request: Request) -> Response:
        """200 and `{}`, which existing probes for servers of this protocol expect."""
        return JSONResponse({}, headers=_NO_STORE)

    async def live_endpoint(self, request: Request) -> Response:
        return health_response(self.live())

    async def ready_endpoint(self, request: Request) -> Response:
        return health_response(self.ready())

    def _outcome(self, check: Check) -> str:
        problem = check()
        return "ok" if problem is None else self._redactor.text(problem)


def health_response(report: HealthReport) -> Response:
    """200 or 503, with the report as JSON."""
    content = {"status": report.status, "checks": report.checks}
    return JSONResponse(content, status_code=200 if report.ok else 503, headers=_NO_STORE)
