"""`beaconfire serve`: load the configuration and run the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import typer

from beaconfire.cli.overrides import SetOption, describe, gather_overrides
from beaconfire.config import Config, load


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
    workers: Annotated[str | None, typer.Option(metavar="NUMBER", help=describe("server.workers"))] = None,
    assignments: SetOption = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help=describe("log.level"))] = None,
    log_format: Annotated[str | None, typer.Option(metavar="FORMAT", help=describe("log.format"))] = None,
    seat: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    Settings come from the configuration file, BEACONFIRE_ environment variables and flags; later sources win.
    """
    flags = {
        "server.host": host,
        "server.port": port,
        "server.workers": workers,
        "log.level": log_level,
        "log.format": log_format,
    }
    overrides = gather_overrides(assignments, flags)
    loaded = load(config, os.environ, overrides)
    raise typer.Exit(_run(loaded, config, overrides, seat))


def _run(loaded: Config, config: str | None, overrides: Mapping[str, str], seat: str | None) -> int:
    """Runs a server of one process, a supervisor, or the child of a supervisor that has this seat.

    The imports are here because other commands do not need the server.
    """
    if seat is not None:
        from beaconfire.server.workers.run import run_child
        from beaconfire.server.workers.seat import Seat

        return run_child(loaded, Seat.decode(seat))
    if loaded.server.workers > 1:
        from beaconfire.server.workers.run import supervise

        return supervise(loaded, config, overrides)
    from beaconfire.server.process import run

    return run(loaded)
