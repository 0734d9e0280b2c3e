"""Configures logging so that tests can read the lines."""

from __future__ import annotations

import io
import json
from typing import Any, Literal

from beaconfire.base.clock import ManualClock
from beaconfire.observe.logs import configure
from beaconfire.observe.options import LogOptions

Level = Literal["debug", "info", "warning", "error"]
API_KEY = "live-key-2f9d81"


def configured(level: Level = "info", clock: ManualClock | None = None) -> io.StringIO:
    """Configures logging as JSON, with `API_KEY` as a secret. Returns the stream of the lines."""
    stream = io.StringIO()
    configure(LogOptions(level=level, format="json"), stream, secrets=[API_KEY], clock=clock)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The fields of each line that was written to the stream."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]
