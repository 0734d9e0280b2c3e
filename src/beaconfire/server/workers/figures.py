"""The metrics and the readiness of all processes, whichever of them is asked.

Each process serves its own at a Unix socket in the run directory. A worker that is scraped asks all others, without
the hub: metrics and readiness work also while the hub is down.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from beaconfire.observe.health import Health, HealthReport, health_response
from beaconfire.observe.metrics import MetricsSink, metrics_response
from beaconfire.server.workers.exposition import add_label, merge
from beaconfire.server.workers.seat import HUB, Seat, figures_socket, status_file
from beaconfire.server.workers.status import ProcessStatus, Status, read_status

TIMEOUT_S: Final = 2.0
"""How long another process may take to answer. Without its answer, it counts as down."""

_METRICS: Final = "/metrics"
_READY: Final = "/health/ready"


class Figures:
    """Collects the figures of all processes in one of them."""

    def __init__(self, seat: Seat, metrics: MetricsSink, health: Health) -> None:
        """`metrics` and `health` are those of this process."""
        self._seat = seat
        self._metrics = metrics
        self._health = health
        self._name = seat.name

    def routes(self) -> list[BaseRoute]:
        """The endpoints for everybody: figures of all processes."""
        return [Route(_METRICS, self._all_metrics), *self._health.routes(self._all_ready)]

    def own_routes(self) -> list[BaseRoute]:
        """The endpoints for the other processes: figures of this one."""
        return [Route(_METRICS, self._own_metrics), Route(_READY, self._health.ready_endpoint)]

    def retire(self) -> None:
        """From now on the series of this process have another label, because its slot has a new worker."""
        self._name = f"{self._seat.name}-retiring"

    # Metrics

    async def _own_metrics(self, request: Request) -> Response:
        return metrics_response((await self._labelled()).encode())

    async def _labelled(self) -> str:
        return add_label((await self._metrics.measure()).decode(), "worker", self._name)

    async def _all_metrics(self, request: Request) -> Response:
        status = read_status(status_file(self._seat.folder))
        others = self._others(status)
        own, *answers = await asyncio.gather(
            self._labelled(), *(_fetch(self._seat.folder, each, _METRICS) for each in others)
        )
        texts = [str(own), *(answer.decode() for answer in answers if isinstance(answer, bytes))]
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
        answers = await asyncio.gather(*(_fetch(self._seat.folder, each, _READY) for each in others))
        reports = {self._seat.name: self._health.ready()}
        for each, answer in zip(others, answers, strict=True):
            no_answer = HealthReport("failing", {"process": f"does not answer within {TIMEOUT_S:g} s"})
            reports[each.name] = no_answer if answer is None else msgspec.json.decode(answer, type=HealthReport)
        return health_response(combine(reports, status, self._seat.name))

    # Other processes

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


async def _fetch(folder: str, process: ProcessStatus, path: str) -> bytes | None:
    """The body of the answer, or None if the process does not answer."""
    connector = aiohttp.UnixConnector(figures_socket(folder, process.pid))
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
            client.get(f"http://localhost{path}") as response,
        ):
            return await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None
