"""Options of the log."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from beaconfire.base.options import Options


class LogOptions(Options, frozen=True, kw_only=True):
    """The log, written to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The lowest level to log.")] = (
        "info"
    )
    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="JSON lines, readable text, or `auto`: text on a terminal and JSON lines elsewhere."),
    ] = "auto"
