"""`beaconfire config …`: show, document, check and start a configuration."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer
from rich.text import Text

from beaconfire.cli.console import EXIT_FAILED, EXIT_USAGE, explain, fail, show_problems, show_warnings, write
from beaconfire.cli.effective import Line, as_json, as_toml, as_yaml
from beaconfire.cli.options import SetOption, gather_overrides
from beaconfire.cli.starter import starter
from beaconfire.config import TABLE, ConfigError, load, load_with_origins
from beaconfire.config.table import Section, Setting
from beaconfire.config.values import bounds, literal, text, type_words
from beaconfire.server import announcement

config_app = typer.Typer(help="Show, document, check and start a configuration.", no_args_is_help=True)

FileArgument: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help="The file; without it the one that BEACONFIRE_CONFIG names, if any."),
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
        Format, typer.Option("--format", "-f", metavar="toml|yaml|json", help="How to write it.")
    ] = Format.TOML,
    assignments: SetOption = None,
) -> None:
    """Print every setting in effect and where it comes from; secrets are masked."""
    loaded = load_with_origins(file, os.environ, gather_overrides(assignments, {}))
    if format_ is Format.JSON:
        write(json.dumps(as_json(loaded), indent=2, ensure_ascii=False))
        return
    lines = as_toml(loaded) if format_ is Format.TOML else as_yaml(loaded)
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
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="A setting or a table, like client.")] = None,
) -> None:
    """Document all settings, those of one table, or one."""
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
    explain(section.description, indent=4)
    write("")
    for setting in () if section.repeated else section.settings:
        _document(setting)


def _document(setting: Setting) -> None:
    facts = " ".join(word for word in (type_words(setting), bounds(setting)) if word)
    write(Text(setting.name, "bold"))
    explain(setting.description, indent=4)
    explain(Text.assemble((facts, "cyan"), ", default ", (literal(setting.default), "green")), indent=4)
    explain(Text(setting.env, "dim"), indent=4)
    write("")


@config_app.command()
def check(file: FileArgument = None, assignments: SetOption = None) -> None:
    """Check a file together with the environment: print ok, or every problem and exit with 1."""
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

    Variables of a table that is left out by default are commented out.
    """
    for section in TABLE.sections.values():
        write(Text(f"# [{section.name}] {section.description}", "dim"))
        prefix = "# " if section.optional else ""
        for setting in TABLE:
            if setting.section == section.name:
                write(f"{prefix}{setting.env}={shlex.quote(text(setting.default))}")


@config_app.command()
def init() -> None:
    """Print a starter file with comments, a fresh token secret and a fresh API key.

    Use it like this: beaconfire config init > beaconfire.toml
    """
    write(starter(secrets.token_hex(32), secrets.token_urlsafe(24)), end="")
