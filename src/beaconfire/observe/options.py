"""Settings of the log."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from beaconfire.base.options import Options


class LogOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")] = (
        "info"
    )
    format: Annotated[
        Literal["auto", "json", "text"], Meta(description="JSON lines, readable text, or text on a terminal only.")
    ] = "auto"
