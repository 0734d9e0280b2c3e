"""The command `beaconfire`."""

from __future__ import annotations

from typing import Annotated

import typer

from beaconfire import __version__
from beaconfire.cli.bench import bench
from beaconfire.cli.config import config_app
from beaconfire.cli.console import ErrorHandlingGroup, write
from beaconfire.cli.engine import engine_app
from beaconfire.cli.serve import serve
from beaconfire.cli.token import token_app

app = typer.Typer(
    name="beaconfire",
    help="Beaconfire: a real-time message push server.",
    cls=ErrorHandlingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Beaconfire: a real-time message push server."""


app.command()(serve)
app.command()(bench)
app.add_typer(engine_app, name="engine")
app.add_typer(config_app, name="config")
app.add_typer(token_app, name="token")


@app.command()
def version() -> None:
    """Print the version."""
    write(f"beaconfire {__version__}")
