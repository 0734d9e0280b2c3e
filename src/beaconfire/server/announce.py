"""Tells operators what is running and where, when the server has started."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence

from beaconfire import __version__
from beaconfire.config import Config
from beaconfire.observe import logs
from beaconfire.server import announcement


def announce(config: Config, node_id: str, engine_name: str, addresses: Sequence[str]) -> None:
    """Writes to the log, or to the terminal of a person, what is running and where, and what is insecure."""
    fields = announcement.announcement(config, __version__, node_id, engine_name, addresses)
    log = logs.get_logger()
    if config.log.format == "auto" and sys.stderr.isatty() and log.is_enabled_for(logging.INFO):
        # For a person at a terminal: addresses to click, instead of one long line.
        lines = announcement.lines(fields, shutil.get_terminal_size().columns)
        sys.stderr.write("\n".join(["", *lines, "", ""]))
    else:
        log.info("server_started", **{field.name.replace(".", "_"): field.value for field in fields})
    for warning in announcement.warnings(config):
        log.warning("insecure", detail=warning)
    for note in announcement.notes(config):
        log.info("note", detail=note)
