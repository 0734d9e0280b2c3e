"""`beaconfire config`: show, document, check and create a configuration."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer
from rich.text import Text

from beaconfire.cli.config_formats import Line, format_toml, format_yaml, to_json
from beaconfire.cli.console import EXIT_FAILED, EXIT_USAGE, fail, show_problems, show_warnings, write, write_prose
from beaconfire.cli.overrides import SetOption, gather_overrides
from beaconfire.cli.starter_config import starter_config
from beaconfire.config import TABLE, ConfigError, load, load_with_origins
from beaconfire.config.descriptions import describe_type
from beaconfire.config.table import Section, Setting
from beaconfire.config.values import to_literal, to_text
from beaconfire.server import announcement

config_app = typer.Typer(help="Show, document, check and create a configuration.", no_args_is_help=True)

FileArgument: TypeAlias = Annotated[
    str | None,
    typer.Argument(
        metavar="[FILE]", help="Configuration file. Default: the file that BEACONFIRE_CONFIG names, if set."
    ),
]


class Format(StrEnum):
    """The file formats."""

    TOML = "toml"
    JSON = "json"
    YAML = "yaml"


@config_app.command()
def show(
    file: FileArgument = None,
    format_: Annotated[
        Format, typer.Option("--format", "-f", metavar="toml|yaml|json", help="Output format.")
    ] = Format.TOML,
    assignments: SetOption = None,
) -> None:
    """Print every setting in effect and its origin; secrets are masked."""
    loaded = load_with_origins(file, os.environ, gather_overrides(assignments, {}))
    if format_ is Format.JSON:
        write(json.dumps(to_json(loaded), indent=2, ensure_ascii=False))
        return
    lines = format_toml(loaded) if format_ is Format.TOML else format_yaml(loaded)
    width = max(len(line.text) for line in lines if line.comment and len(line.text) <= 52)
    for line in lines:
        write(_styled(line, width))


def _styled(line: Line, width: int) -> Text:
    if not line.comment:
        return Text(line.text, style="bold")
    styled = Text(f"{line.text:<{width}}  ")
    styled.append(f"# {line.comment}", "dim" if line.comment == "default" else "green")
    return styled


@config_app.command()
def doc(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Name of a setting or a table, like client.")
    ] = None,
) -> None:
    """Print the documentation of all settings, of one table or of one setting."""
    if key is None:
        for section in TABLE.sections.values():
            _document_section(section)
    elif key in TABLE.sections:
        _document_section(TABLE.sections[key])
    elif setting := TABLE.find(key):
        _document(setting)
    else:
        fail(f"unknown setting {key}; the nearest known name is {TABLE.nearest(key)}", EXIT_USAGE)


def _document_section(section: Section) -> None:
    write(Text(f"[{section.name}.<name>]" if section.repeated else f"[{section.name}]", "bold cyan"))
    write_prose(section.description, indent=4)
    write("")
    for setting in () if section.repeated else section.settings:
        _document(setting)


def _document(setting: Setting) -> None:
    write(Text(setting.name, "bold"))
    write_prose(setting.description, indent=4)
    default = Text.assemble((describe_type(setting), "cyan"), ", default ", (to_literal(setting.default), "green"))
    write_prose(default, indent=4)
    write_prose(Text(setting.env, "dim"), indent=4)
    write("")


@config_app.command()
def check(file: FileArgument = None, assignments: SetOption = None) -> None:
    """Check a configuration file and the environment: print ok, or print every problem and exit with 1."""
    try:
        config = load(file, os.environ, gather_overrides(assignments, {}))
    except ConfigError as error:
        show_problems(error.problems)
        raise typer.Exit(EXIT_FAILED) from None
    show_warnings(announcement.warnings(config), announcement.notes(config))
    write(Text("ok", "bold green"))


@config_app.command()
def env() -> None:
    """Print every environment variable with its default.

    Variables of a table that is absent by default are commented out.
    """
    for section in TABLE.sections.values():
        write(Text(f"# [{section.name}] {section.description}", "dim"))
        prefix = "# " if section.optional else ""
        for setting in TABLE:
            if setting.section == section.name:
                write(f"{prefix}{setting.env}={shlex.quote(to_text(setting.default))}")


@config_app.command()
def init() -> None:
    """Print a starter file with comments, a new token secret and a new API key.

    Example: beaconfire config init > beaconfire.toml
    """
    write(starter_config(secrets.token_hex(32), secrets.token_urlsafe(24)), end="")
