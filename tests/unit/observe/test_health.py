"""Health reports and their endpoints, in each phase of the node."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette

from beaconfire.observe.health import Health, HealthReport


def started() -> Health:
    health = Health()
    health.started()
    return health


def test_not_ready_until_started() -> None:
    """A node that is still starting is alive and not ready."""
    health = Health()
    assert health.ready() == HealthReport("starting", {})
    assert not health.ready().ok
    assert health.live().ok
    health.started()
    assert health.ready() == HealthReport("ok", {})


def test_not_ready_while_draining() -> None:
    """A draining node is alive, not ready, and never becomes ready again."""
    health = started()
    health.draining()
    assert health.ready().status == "draining"
    health.started()
    assert health.ready().status == "draining"
    assert health.live().ok


def test_a_failing_check_makes_the_node_unready() -> None:
    """The report names the failing dependency and the reason. The node is ready again when the check passes."""
    problem: str | None = "no connection"
    health = started()
    health.add_check("engine", lambda: problem)
    health.add_check("disk", lambda: None)
    assert health.ready() == HealthReport("failing", {"engine": "no connection", "disk": "ok"})
    assert health.live().ok
    problem = None
    assert health.ready() == HealthReport("ok", {"engine": "ok", "disk": "ok"})


def test_the_phase_has_priority_over_failing_checks() -> None:
    """While the node starts or drains, the phase is the status; the report contains the checks, too."""
    health = Health()
    health.add_check("engine", lambda: "down")
    assert health.ready() == HealthReport("starting", {"engine": "down"})
    health.draining()
    assert health.ready() == HealthReport("draining", {"engine": "down"})


def test_check_names_are_unique() -> None:
    """A second check with the same name would replace the first."""
    health = Health()
    health.add_check("engine", lambda: None)
    with pytest.raises(ValueError, match="'engine'"):
        health.add_check("engine", lambda: None)


def test_checks_are_redacted() -> None:
    """The endpoint is public, so secrets in the text of a check are redacted."""
    health = started()
    health.add_check("engine", lambda: "cannot reach redis://user:hunter22@host:6379")
    assert health.ready().checks["engine"] == "cannot reach redis://user:[redacted]@host:6379"


def answer(health: Health, method: str, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=health.routes()))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


def test_endpoints() -> None:
    """200 if the report is ok, else 503, with status and checks; `/health` is an empty object; caching is forbidden."""
    health = Health()
    health.add_check("engine", lambda: None)
    assert answer(health, "GET", "/health").json() == {}
    live = answer(health, "GET", "/health/live")
    assert (live.status_code, live.json()) == (200, {"status": "ok", "checks": {}})
    ready = answer(health, "GET", "/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "starting", "checks": {"engine": "ok"}})
    health.started()
    ready = answer(health, "GET", "/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "checks": {"engine": "ok"}})
    assert ready.headers["cache-control"] == "no-store"
    assert answer(health, "HEAD", "/health/ready").status_code == 200
