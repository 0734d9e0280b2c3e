"""The state tables in the guide of the browser client are equal to those in its code."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "how-to" / "browser-client.md"
TABLES = ROOT / "src" / "beaconfire" / "web" / "client" / "constants.js"

Table = dict[str, dict[str, str]]


def documented(page: str) -> list[Table]:
    """The tables whose first column is `state`: state, event, next state."""
    found = []
    for head, body in re.findall(r"^\| state \|(.*)\|\n\|[-|]+\n((?:\|.*\n)+)", page, re.M):
        events = [event.strip(" `()") for event in head.split("|")]
        rows = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in body.splitlines()]
        found.append({row[0]: {e: cell for e, cell in zip(events, row[1:], strict=True) if cell} for row in rows})
    return found


def implemented(script: str, name: str) -> Table:
    """The table in the exported object of that name."""
    match = re.search(rf"export const {name} = \{{\n(.*?)\n\}};", script, re.S)
    assert match, name
    return {
        state: dict(re.findall(r'(\w+): "(\w+)"', row))
        for state, row in re.findall(r"^  (\w+): \{(.*)\},$", match[1], re.M)
    }


def test_state_tables_of_the_guide_are_complete() -> None:
    """The guide has exactly the states and events of the code."""
    script = TABLES.read_text(encoding="utf-8")
    tables = [implemented(script, "STATES"), implemented(script, "SUBSCRIPTION_STATES")]
    assert [len(table) for table in tables] == [4, 3]
    assert documented(PAGE.read_text(encoding="utf-8")) == tables
