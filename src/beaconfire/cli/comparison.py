"""How commands print the result of a comparison of two engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.text import Text

from beaconfire.cli.console import write


class Totals(Protocol):
    """What was compared in one engine."""

    @property
    def channels(self) -> int: ...

    @property
    def publications(self) -> int: ...

    @property
    def hash(self) -> str: ...


class Difference(Protocol):
    """See `engines.migration.Difference`."""

    @property
    def channel(self) -> str: ...

    @property
    def what(self) -> str: ...


def print_comparison(
    totals: Mapping[str, Totals], differences: Sequence[Difference], different: int, consequence: str = ""
) -> None:
    """Prints the totals by the name of their engine, and the differences. `different` is the number of channels that
    differ. `consequence` follows it."""
    for name, each in totals.items():
        write(f"{name}: {each.channels:,} channels, {each.publications:,} publications, hash {each.hash}")
    for difference in differences:
        write(Text.assemble((difference.channel, "bold"), f": {difference.what}"))
    if different:
        write(Text(f"{different:,} channels differ{consequence}", "bold red"))
    else:
        write(Text("0 differences", "bold green"))
