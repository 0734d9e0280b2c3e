"""The metrics and the readiness of all processes, whichever of them is asked.

Each process serves its own at a Unix socket in the run directory. A worker that is scraped asks all others, without
the hub: metrics and readiness work also while the hub is down.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from beaconfire.observe.health import HealthReport, health_response
from beaconfire.observe.metrics import metrics_response
from beaconfire.server.workers.exposition import merge
from beaconfire.server.workers.own_figures import METRICS, READY, OwnFigures
from beaconfire.server.workers.private_socket import ask
from beaconfire.server.workers.seat import HUB, figures_socket, status_file
from beaconfire.server.workers.status import ProcessStatus, Status, read_status

TIMEOUT_S: Final = 2.0
"""How long another process may take to answer. Without its answer, it counts as down."""


class Figures(OwnFigures):
    """Collects the figures of all processes in one of them."""

    def routes(self) -> list[BaseRoute]:
        """The endpoints for everybody: figures of all processes."""
        return [Route("/metrics", self._all_metrics), *self._health.routes(self._all_ready)]

    # Metrics

    async def _all_metrics(self, request: Request) -> Response:
        status = read_status(status_file(self._seat.folder))
        others = self._others(status)
        own, *answers = await asyncio.gather(self._labelled(), *(self._ask(each, METRICS) for each in others))
        texts = [answer.decode() for answer in (own, *answers) if answer is not None]
        up = {
            each.name: answer is not None for each, answer in zip(others, answers, strict=True) if each.state == "ready"
        }
        return metrics_response(merge([*texts, self._about_processes(status, up)]).encode())

    def _about_processes(self, status: Status, up: dict[str, bool]) -> str:
        lines = ["# HELP beaconfire_worker_up \n# TYPE beaconfire_worker_up gauge\n"]
        names = [HUB, *map(str, range(self._seat.workers))]
        found = {self._seat.name: True} | up
        lines += [f'beaconfire_worker_up{{worker="{name}"}} {int(found.get(name, False))}\n' for name in names]
        lines.append("# HELP beaconfire_worker_restarts_total \n# TYPE beaconfire_worker_restarts_total counter\n")
        lines += [
            f'beaconfire_worker_restarts_total{{worker="{slot.name}"}} {slot.restarts}\n' for slot in status.slots
        ]
        return "".join(lines)

    # Readiness

    async def _all_ready(self, request: Request) -> Response:
        status = read_status(status_file(self._seat.folder))
        others = [each for each in self._others(status) if each.state == "ready"]
        answers = await asyncio.gather(*(self._ask(each, READY) for each in others))
        reports = {self._seat.name: self._health.ready()}
        for each, answer in zip(others, answers, strict=True):
            no_answer = HealthReport("failing", {"process": f"does not answer within {TIMEOUT_S:g} s"})
            reports[each.name] = no_answer if answer is None else msgspec.json.decode(answer, type=HealthReport)
        return health_response(combine(reports, status, self._seat.name))

    # Other processes

    async def _ask(self, process: ProcessStatus, question: str) -> bytes | None:
        return await ask(figures_socket(self._seat.folder, process.pid), question, TIMEOUT_S)

    def _others(self, status: Status) -> Sequence[ProcessStatus]:
        return [each for each in status.processes if each.pid != os.getpid() and each.state != "starting"]


def combine(reports: dict[str, HealthReport], status: Status, own: str) -> HealthReport:
    """The readiness of the whole: `ok` if all processes are. A check that fails names the processes in which it does.

    While this process `own` starts or drains, that is the status: all others soon do the same.
    """
    checks: dict[str, str] = {}
    for name, report in reports.items():
        for check, outcome in report.checks.items():
            if outcome == "ok":
                checks.setdefault(check, "ok")
            else:
                before = checks.get(check, "ok")
                problem = f"{name}: {outcome}"
                checks[check] = problem if before == "ok" else f"{before}; {problem}"
    checks["workers"] = status.problem() or "ok"
    if reports[own].status in ("starting", "draining"):
        return HealthReport(reports[own].status, checks)
    return HealthReport("ok" if all(outcome == "ok" for outcome in checks.values()) else "failing", checks)
