"""Which endpoints a configuration serves, and where.

The endpoints themselves are not here: the supervisor announces them, and does not need the protocols and transports.
"""

from __future__ import annotations

from beaconfire.config import Config
from beaconfire.transports.endpoint_table import EndpointRow


def is_enabled(config: Config, row: EndpointRow) -> bool:
    """Whether the configuration serves this endpoint."""
    return bool(getattr(getattr(config, row.section), "enabled", True))


def endpoint_path(config: Config, row: EndpointRow) -> str:
    """The path of the endpoint, which a setting may hold."""
    path: str = row.path or getattr(config, row.section).path
    return path
