"""`beaconfire serve`: load the configuration, run the server."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from beaconfire.cli.options import SetOption, describe, gather_overrides
from beaconfire.config import load


def serve(
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Configuration: .toml, .yaml or .json. Without it, the file that BEACONFIRE_CONFIG names, if any.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help=describe("server.host"))] = None,
    port: Annotated[str | None, typer.Option(metavar="NUMBER", help=describe("server.port"))] = None,
    assignments: SetOption = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help=describe("log.level"))] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT", help=describe("log.format"))] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    Settings come from the file, then from BEACONFIRE_ variables, then from flags; the later win.
    """
    flags = {"server.host": host, "server.port": port, "log.level": log_level, "log.format": log_format}
    loaded = load(config, os.environ, gather_overrides(assignments, flags))
    from beaconfire.server.process import run

    raise typer.Exit(run(loaded))
