"""Makes the reference pages in `docs/reference` from the tables in the code: `python -m scripts.docs [--check]`.

With `--check` nothing is written, and the exit code is 1 if a page is stale.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from typer.main import get_command

from beaconfire.api.reference import reference_markdown
from beaconfire.base.errors import DISCONNECTS, ERRORS, UNSUBSCRIBES
from beaconfire.cli.main import app
from beaconfire.config import TABLE, Config
from beaconfire.config.descriptions import describe_type
from beaconfire.config.table import ENV_PREFIX, Section, Setting
from beaconfire.config.values import to_literal
from beaconfire.observe.metrics import METRICS
from beaconfire.server.engines import ENGINES
from beaconfire.transports.endpoint_table import ENDPOINTS, EndpointRow

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
_GENERATED = "<!-- Made by `make docs` from {source}. Change it there. -->"


def pages() -> dict[str, str]:
    """Every generated page by its file name in `docs/reference`."""
    return {
        "endpoints.md": _join(_endpoints()),
        "settings.md": _join(_settings()),
        "codes.md": _join(_codes()),
        "metrics.md": _join(_metrics()),
        "cli.md": _join(_command_line()),
        "server-api.md": reference_markdown(),
    }


def stale_pages(folder: Path = FOLDER) -> list[str]:
    """The names of pages in `folder` that are not what the tables say now, missing ones included."""
    return [name for name, text in pages().items() if _read(folder / name) != text]


def main(arguments: Sequence[str], folder: Path = FOLDER) -> int:
    stale = stale_pages(folder)
    if "--check" in arguments:
        for name in stale:
            print(f"docs/reference/{name} is stale; run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
    print("\n".join(f"docs/reference/{name} written" for name in stale) or "docs/reference is up to date")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


# --- Markdown ----------------------------------------------------------------------------------------------------


def _join(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns line up in the source as well; the last column is left ragged."""
    cells = [list(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head) - 1)]

    def line(row: Sequence[str]) -> str:
        padded = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        return f"| {' | '.join([*padded, row[-1]])} |"

    rule = "|" + "|".join("-" * (width + 2) for width in [*widths, len(head[-1])]) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


# --- settings ----------------------------------------------------------------------------------------------------


def _settings() -> Iterator[str]:
    yield "# Settings"
    yield _GENERATED.format(source="the option structs in `src/beaconfire`")
    example = next(iter(TABLE.sections["client"].settings))
    yield (
        "Every option can be set in the configuration file, in an environment variable, or on the command line;\n"
        "[how the sources combine](../how-to/configure.md).\n"
        f"The environment variable of an option is `{ENV_PREFIX}`, its table and its name in capitals: "
        f"`{example.name}` is `{example.env}`.\n"
        "On the command line, use `--set`: `--set client.ping_interval=10s`."
    )
    yield (
        'A *duration* is text like `"25s"`, `"300ms"` or `"1h30m"`, or a number of seconds.\n'
        'A *size* is text like `"64KiB"` or `"1MB"`, or a number of bytes.\n'
        "Options marked (secret) are never shown in errors or logs."
    )
    yield "\n".join(f"- [`[{_heading(section)}]`](#{_anchor(section)})" for section in TABLE.sections.values())
    for section in TABLE.sections.values():
        yield from _settings_section(section)


def _heading(section: Section) -> str:
    return f"{section.name}.<name>" if section.repeated else section.name


def _anchor(section: Section) -> str:
    return f"{section.name}name" if section.repeated else section.name


def _settings_section(section: Section) -> Iterator[str]:
    yield f"## `[{_heading(section)}]`"
    first = next(other for other in TABLE.sections.values() if other.type is section.type)
    if first is not section:
        yield f"{section.description}\nThe options are those of [`[{first.name}]`](#{first.name})."
        return
    yield section.description
    yield _table(["option", "type", "default", "meaning"], map(_setting_row, section.settings))


def _setting_row(setting: Setting) -> tuple[str, str, str, str]:
    kind = re.sub(r'"[^"]*"', r"`\g<0>`", describe_type(setting))
    description = f"{setting.description} (secret)" if setting.secret else setting.description
    return f"`{setting.option}`", kind, f"`{to_literal(setting.default)}`", description


# --- endpoints ---------------------------------------------------------------------------------------------------


def _endpoints() -> Iterator[str]:
    yield "# Endpoints and engines"
    yield _GENERATED.format(
        source="`src/beaconfire/transports/endpoint_table.py` and `src/beaconfire/server/engines.py`"
    )
    yield (
        "Paths where clients connect, listen or send commands.\n"
        "The settings of an endpoint are in the [table](settings.md) of that name; an endpoint with an `enabled`\n"
        "setting can be switched off."
    )
    yield _table(["name", "path", "protocol", "settings", "purpose"], map(_endpoint_row, ENDPOINTS))
    yield "## Engines"
    yield "The values of [`engine.type`](settings.md#engine)."
    yield _table(["engine", "meaning"], ((f"`{name}`", row.summary) for name, row in ENGINES.items()))


def _endpoint_row(row: EndpointRow) -> tuple[str, str, str, str, str]:
    path = row.path or getattr(Config(), row.section).path
    return f"`{row.name}`", f"{' or '.join(row.methods)} `{path}`", row.protocol, f"`[{row.section}]`", row.summary


# --- codes -------------------------------------------------------------------------------------------------------


def _codes() -> Iterator[str]:
    yield "# Codes"
    yield _GENERATED.format(source="`src/beaconfire/base/errors.py`")
    yield (
        "A failure is one of two things: an *error* is the reply to a command, and the session lives on;\n"
        "a *disconnect* ends the session. Numbers and their meaning follow the Centrifuge client protocol."
    )
    yield "## Errors"
    yield "Replies to a command. *Temporary* ones are worth trying again later, unchanged."
    yield _table(
        ["code", "message", "temporary", "meaning"],
        ((str(error.code), f"`{error.message}`", _yes(error.temporary), error.meaning) for error in ERRORS),
    )
    yield "## Disconnects"
    yield (
        "WebSocket close codes with their reasons. After codes 3500 to 3999 and 4500 to 4999 a client must not come\n"
        "back by itself; after all others it should, with a delay that grows."
    )
    yield _table(
        ["code", "reason", "reconnect", "meaning"],
        ((str(code.code), f"`{code.reason}`", _yes(code.reconnect), code.meaning) for code in DISCONNECTS),
    )
    yield "## Unsubscribes"
    yield (
        "Ends of one subscription; the session lives on. From 2500 on a client subscribes again by itself; below that\n"
        "it stays unsubscribed."
    )
    yield _table(
        ["code", "reason", "resubscribe", "meaning"],
        ((str(code.code), f"`{code.reason}`", _yes(code.resubscribe), code.meaning) for code in UNSUBSCRIBES),
    )


# --- metrics -----------------------------------------------------------------------------------------------------


def _metrics() -> Iterator[str]:
    yield "# Metrics"
    yield _GENERATED.format(source="`beaconfire.observe.metrics.METRICS`")
    yield "Served at `/metrics` in the Prometheus text format. All counts are of one node since it started."
    rows = (
        (
            f"`{metric.name}`",
            metric.kind,
            metric.unit or "–",
            ", ".join(f"`{label}`" for label in metric.labels) or "–",
            metric.help,
        )
        for metric in METRICS
    )
    yield _table(["metric", "kind", "unit", "labels", "meaning"], rows)


# --- command line ------------------------------------------------------------------------------------------------


def _command_line() -> Iterator[str]:
    yield "# Command line"
    yield _GENERATED.format(source="`src/beaconfire/cli`")
    yield (
        "Results go to standard output, everything else to standard error.\n"
        "Exit codes: 0 success; 1 the command failed; 2 wrong usage or an unusable configuration."
    )
    root = get_command(app)
    for path, command in _commands("beaconfire", root):
        yield from _command(path, command)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """The commands a person can run, depth first; groups only lead to them."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from _commands(f"{path} {name}", child)


def _command(path: str, command: Any) -> Iterator[str]:
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    yield f"## `{path}`"
    yield inspect.cleandoc(command.help or "")
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *map(_metavar, arguments)])
    yield f"```\n{usage}\n```"
    rows = [(f"`{_metavar(argument)}`", getattr(argument, "help", None) or "") for argument in arguments]
    rows += [(_option_names(option), _option_help(option)) for option in options]
    if rows:
        yield _table(["argument or option", "meaning"], rows)


def _metavar(argument: Any) -> str:
    metavar = argument.metavar or argument.name.upper()
    return metavar if argument.required or metavar.startswith("[") else f"[{metavar}]"


def _option_names(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    return f"{names} `{option.metavar or option.name.upper()}`"


def _option_help(option: Any) -> str:
    parts = [option.help or ""]
    default = option.default
    if default not in (None, False, (), "") and not callable(default):
        parts.append(f"Default: `{getattr(default, 'value', default)}`.")
    if option.required:
        parts.append("Required.")
    return " ".join(part for part in parts if part)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
