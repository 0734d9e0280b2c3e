"""Is the process alive, and should it be sent traffic? Two questions, because the answers differ while it drains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from beaconfire.observe.redaction import Redactor

Check: TypeAlias = Callable[[], str | None]
"""Looks at one dependency: None if it is well, else what is wrong. It must not block and must not raise."""

Status: TypeAlias = Literal["ok", "starting", "draining", "failing"]

_NO_STORE = {"Cache-Control": "no-store"}


class HealthReport(Struct, frozen=True):
    """`checks` has an entry for each check: `ok`, or what is wrong. Text comes without secrets: anyone may read it."""

    status: Status
    checks: dict[str, str]

    @property
    def ok(self) -> bool:
        return self.status == "ok"


class Health:
    """Starts as `starting`; `started` and `draining` are called once each, in this order, as the node's life goes."""

    def __init__(self) -> None:
        self._phase: Status = "starting"
        self._checks: dict[str, Check] = {}
        self._redactor = Redactor()

    def add_check(self, name: str, check: Check) -> None:
        """Readiness depends on `check` from now on, for example `engine`. Raises ValueError if the name is taken."""
        if name in self._checks:
            raise ValueError(f"there is a health check named {name!r} already")
        self._checks[name] = check

    def started(self) -> None:
        """Everything listens. Without effect once draining: a node that leaves does not come back."""
        if self._phase == "starting":
            self._phase = "ok"

    def draining(self) -> None:
        """This node is leaving: load balancers should send new clients elsewhere."""
        self._phase = "draining"

    def live(self) -> HealthReport:
        """Whether the process works at all; if not it should be restarted. That it answers is the answer.

        A failing dependency is no reason: a restart would not mend it, and would disconnect everyone.
        """
        return HealthReport("ok", {})

    def ready(self) -> HealthReport:
        """Whether clients should be sent here: started, not draining, and every check passes."""
        checks = {name: self._outcome(check) for name, check in self._checks.items()}
        failing = any(outcome != "ok" for outcome in checks.values())
        return HealthReport("failing" if self._phase == "ok" and failing else self._phase, checks)

    def routes(self) -> list[Route]:
        """The endpoints as Starlette routes: `/health`, `/health/live` and `/health/ready`."""
        return [
            Route("/health", self.health_endpoint),
            Route("/health/live", self.live_endpoint),
            Route("/health/ready", self.ready_endpoint),
        ]

    async def health_endpoint(self, request: Request) -> Response:
        """200 and `{}`, as existing probes of this protocol's servers expect it."""
        return JSONResponse({}, headers=_NO_STORE)

    async def live_endpoint(self, request: Request) -> Response:
        return _response(self.live())

    async def ready_endpoint(self, request: Request) -> Response:
        return _response(self.ready())

    def _outcome(self, check: Check) -> str:
        problem = check()
        return "ok" if problem is None else self._redactor.text(problem)


def _response(report: HealthReport) -> Response:
    content = {"status": report.status, "checks": report.checks}
    return JSONResponse(content, status_code=200 if report.ok else 503, headers=_NO_STORE)
