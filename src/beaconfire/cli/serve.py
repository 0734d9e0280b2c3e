"""`beaconfire serve`: load the configuration and run the server."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from beaconfire.cli.overrides import SetOption, describe, gather_overrides
from beaconfire.config import load


def serve(
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Configuration file: .toml, .yaml or .json. Default: the file that BEACONFIRE_CONFIG names, if set.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help=describe("server.host"))] = None,
    port: Annotated[str | None, typer.Option(metavar="NUMBER", help=describe("server.port"))] = None,
    assignments: SetOption = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help=describe("log.level"))] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT", help=describe("log.format"))] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    Settings come from the configuration file, BEACONFIRE_ environment variables and flags; later sources win.
    """
    flags = {"server.host": host, "server.port": port, "log.level": log_level, "log.format": log_format}
    loaded = load(config, os.environ, gather_overrides(assignments, flags))
    from beaconfire.server.process import run  # imported here because other commands do not need the server

    raise typer.Exit(run(loaded))
