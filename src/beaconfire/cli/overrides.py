"""Command-line options that set settings, shared by several commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

import typer

from beaconfire.config import TABLE


def describe(name: str) -> str:
    """Returns the description of a setting, as the help text of the flag that sets it."""
    setting = TABLE.find(name)
    assert setting is not None, name
    return setting.description


SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.OPTION=VALUE", help="Set any option; may be repeated."),
]


def gather_overrides(assignments: Sequence[str] | None, flags: Mapping[str, str | None]) -> dict[str, str]:
    """Returns the values of flags and `--set` by full name. Raises BadParameter if a setting is given twice."""
    overrides = {name: value for name, value in flags.items() if value is not None}
    for assignment in assignments or ():
        name, separator, value = assignment.partition("=")
        name = name.strip()
        if not separator or not name:
            raise typer.BadParameter(f"expected SECTION.OPTION=VALUE, got {name or 'no name'}", param_hint="'--set'")
        if name in overrides:
            raise typer.BadParameter(f"{name} is given twice", param_hint="'--set'")
        overrides[name] = value
    return overrides
