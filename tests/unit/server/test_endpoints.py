"""The endpoints that the rows of the table become."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import pytest
from msgspec import structs
from starlette.routing import Route

from beaconfire.config import Config
from beaconfire.engines.options import EngineOptions
from beaconfire.observe.metric_table import LIMITS
from beaconfire.server.announcement import announcement
from beaconfire.server.app import App
from beaconfire.server.endpoint_paths import endpoint_path
from beaconfire.server.engines import ENGINES
from beaconfire.transports.endpoint_table import ENDPOINTS, EndpointRow
from beaconfire.transports.traits import Pings


def paths(config: Config) -> dict[str, Any]:
    """The paths of a server's endpoints, with their ASGI applications."""

    async def make() -> dict[str, Any]:
        return {route.path: route for route in App(config).endpoints.routes if isinstance(route, Route)}

    return asyncio.run(make())


def without(row: EndpointRow) -> Config:
    section = structs.replace(getattr(Config(), row.section), enabled=False)
    changes: Mapping[str, Any] = {row.section: section}
    return structs.replace(Config(), **changes)


def test_every_row_is_served() -> None:
    """A server with default settings serves exactly the paths of the table."""
    assert set(paths(Config())) == {endpoint_path(Config(), row) for row in ENDPOINTS}


@pytest.mark.parametrize("row", [row for row in ENDPOINTS if hasattr(getattr(Config(), row.section), "enabled")])
def test_a_row_can_be_switched_off(row: EndpointRow) -> None:
    """`enabled = false` removes the paths of the section from the server and from the announcement."""
    config = without(row)
    assert endpoint_path(config, row) not in paths(config)
    names = [field.name for field in announcement(config, "1", "node", "memory", ["http://127.0.0.1:1"])]
    assert row.name not in names


def test_announced_rows_are_announced_with_their_url() -> None:
    """WebSocket endpoints have the scheme ws."""
    fields = {f.name: f.value for f in announcement(Config(), "1", "node", "memory", ["http://127.0.0.1:1"])}
    for row in ENDPOINTS:
        expected = f"{row.scheme}://127.0.0.1:1{endpoint_path(Config(), row)}"
        assert fields.get(row.name) == (expected if row.announced else None)


def test_limits_of_rows_are_settings_and_have_a_metric() -> None:
    """A limit of a row is the full name of a setting, which `beaconfire_limit_hits_total` may name."""
    for row in ENDPOINTS:
        for limit in row.limits:
            assert hasattr(getattr(Config(), row.section), limit)
        assert set(row.limit_settings) <= set(LIMITS)


def test_pings_of_each_endpoint() -> None:
    """A client that cannot send must not have to answer pings; its transport answers, or its own end notices the loss.
    A client that waits for the response to its commands cannot send either. Clients of the plain protocol need no code
    for pings: their WebSocket library answers."""
    pings = {row.name: row.traits.pings for row in ENDPOINTS if row.name != "emulation"}
    assert {name for name, kind in pings.items() if kind is Pings.PROTOCOL} == {
        "websocket",
        "http_stream",
        "sse",
    }
    assert {name for name, kind in pings.items() if kind is Pings.TRANSPORT} == {"uni_websocket", "plain"}
    assert {name for name, kind in pings.items() if kind is Pings.UNANSWERED} == {
        "uni_http_stream",
        "uni_sse",
        "poll",
        "commands",
    }
    for row in ENDPOINTS:
        if row.traits.pings is Pings.TRANSPORT:
            assert row.scheme == "ws"
        if row.is_unidirectional:
            assert row.traits.pings in (Pings.TRANSPORT, Pings.UNANSWERED)


def test_every_engine_type_has_a_row() -> None:
    """`engine.type` accepts exactly the engines of the table."""
    assert set(ENGINES) == set(get_args(get_type_hints(EngineOptions)["type"]))
