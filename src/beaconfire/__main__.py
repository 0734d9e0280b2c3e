"""`python -m beaconfire`: the command `beaconfire`."""

from __future__ import annotations

from beaconfire.cli.main import app

app()
