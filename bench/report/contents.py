"""The texts and numbers of a report, without layout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench.goals import GOALS, OURS, Goal, Outcome, Verdict, judge
from bench.report import catalogue, curves, formatting, tables
from bench.report.about import About
from bench.samples import Sample, select

_UNITS = {"us": "max_us", "bytes": "bytes", "x": "times_c_loop"}
_SIGNS = {"<=": "≤", ">=": "≥"}
UNEXPLAINED = "Not yet explained."


class GoalRow(msgspec.Struct, frozen=True):
    """A goal and its result. `explanation` is Markdown; empty unless the goal was missed."""

    key: str
    text: str
    formula: str
    value: str
    rounds: int
    wanted: str
    outcome: Outcome
    mark: str
    explanation: str


class Section(msgspec.Struct, frozen=True):
    """A scenario that has samples: its table and its plots."""

    table: tables.Table
    plots: tuple[curves.Plot, ...]


class Contents(msgspec.Struct, frozen=True):
    """A report. `unmeasured` are the titles of scenarios without samples."""

    about: About
    goals: tuple[GoalRow, ...]
    sections: tuple[Section, ...]
    unmeasured: tuple[str, ...]

    def count(self, outcome: Outcome) -> int:
        return sum(goal.outcome == outcome for goal in self.goals)

    @property
    def missed(self) -> tuple[GoalRow, ...]:
        return tuple(goal for goal in self.goals if goal.outcome == "missed")


def contents(samples: Sequence[Sample], about: About, explanations: Mapping[str, str]) -> Contents:
    """The contents of the report of these samples. `explanations` are Markdown by key of the goal."""
    names = tables.titles(samples, about)
    known = [scenario.name for scenario in catalogue.SCENARIOS]
    measured = catalogue.in_order((sample.scenario for sample in samples), known)
    return Contents(
        about=msgspec.structs.replace(about, peers={name: about.peers[name] for name in names if name in about.peers}),
        goals=tuple(_goal_row(judge(goal, samples), names, explanations) for goal in GOALS),
        sections=tuple(_section(catalogue.scenario(name), samples, about, names) for name in measured),
        unmeasured=tuple(scenario.title for scenario in catalogue.SCENARIOS if scenario.name not in measured),
    )


def read_explanations(path: Path) -> dict[str, str]:
    """The explanations in a file, Markdown by key of the goal; none if there is no such file.

    Raises ValueError for a heading that is not the key of a goal: its text would not be shown.
    """
    if not path.exists():
        return {}
    parts = re.split(r"^## +(.+?) *$", path.read_text(), flags=re.MULTILINE)[1:]
    found = {key: text.strip() for key, text in zip(parts[::2], parts[1::2], strict=True)}
    if unknown := found.keys() - {goal.key for goal in GOALS}:
        raise ValueError(f"{path}: no goal has the key {sorted(unknown)[0]!r}")
    return found


def _section(
    scenario: catalogue.ScenarioText, samples: Sequence[Sample], about: About, names: dict[str, str]
) -> Section:
    found = select(samples, scenario.name)
    return Section(tables.table(scenario, found, about, names), tuple(curves.plots(scenario, found, names)))


def _goal_row(verdict: Verdict, names: Mapping[str, str], explanations: Mapping[str, str]) -> GoalRow:
    goal = verdict.goal
    bound = ", ".join(names.get(peer, peer) for peer in verdict.load_bound)
    return GoalRow(
        key=goal.key,
        text=goal.text,
        formula=goal.formula,
        value="" if verdict.value is None else _value(goal, verdict.value),
        rounds=verdict.rounds,
        wanted=_wanted(goal, names),
        outcome=verdict.outcome,
        mark=f"load-bound: {bound}" if bound else "",
        explanation=(explanations.get(goal.key) or UNEXPLAINED) if verdict.outcome == "missed" else "",
    )


def _value(goal: Goal, value: float) -> str:
    return formatting.times(value) if goal.unit == "x" else formatting.quantity(_UNITS[goal.unit], value)


def _wanted(goal: Goal, names: Mapping[str, str]) -> str:
    """The threshold and its reference: `≤ 1.15× C loop`, `≥ 10× better than Channels`, `≤ 10.0 KiB`."""
    if goal.under is None:
        return f"{_SIGNS[goal.direction]} {formatting.quantity(_UNITS[goal.unit], goal.threshold)}"
    threshold = f"{_SIGNS[goal.direction]} {goal.threshold:g}×"
    if goal.under.peer == goal.over.peer:
        return f"{threshold} that at {formatting.variant(goal.under.variant.items())}"
    if goal.under.peer == OURS:
        return f"{threshold} less than {names.get(goal.over.peer, goal.over.peer)}"
    return f"{threshold} {names.get(goal.under.peer, goal.under.peer)}"
