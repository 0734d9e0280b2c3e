"""Computes tables from samples: one table per scenario, one block per variant, one row per peer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.goals import OURS
from bench.report import catalogue, formatting
from bench.report.about import About
from bench.samples import Sample, Variant, group, ratio, spread


class Cell(msgspec.Struct, frozen=True):
    """The median of a metric, its spread over rounds, its ratio to Beaconfire's, and whether the peer is better."""

    text: str
    spread: str = ""
    ratio: str = ""
    better: bool | None = None


class Row(msgspec.Struct, frozen=True):
    """A peer in a block. `note` is the part of its variant that others don't share. `mark` says if it is load-bound."""

    peer: str
    title: str
    note: str
    mark: str
    cells: tuple[Cell | None, ...]

    @property
    def is_ours(self) -> bool:
        return self.peer == OURS


class Block(msgspec.Struct, frozen=True):
    """The peers that were measured under the same conditions."""

    title: str
    rows: tuple[Row, ...]


class Table(msgspec.Struct, frozen=True):
    """A scenario. The columns of compared metrics come first. `unmeasured` are titles of peers without samples,
    `unable` those of peers that lack a needed capability."""

    scenario: catalogue.ScenarioText
    columns: tuple[catalogue.MetricText, ...]
    blocks: tuple[Block, ...]
    unmeasured: tuple[str, ...]
    unable: tuple[str, ...]

    @property
    def compared(self) -> int:
        """The number of columns with compared metrics."""
        return sum(column.compared for column in self.columns)

    @property
    def is_marked(self) -> bool:
        """Whether a row is load-bound."""
        return any(row.mark for block in self.blocks for row in block.rows)


def titles(samples: Sequence[Sample], about: About) -> dict[str, str]:
    """The titles of all peers that are known or have samples, in the order of rows."""
    names = [*(about.peers or catalogue.PEERS), *(sample.peer for sample in samples)]
    return {
        name: about.peers[name].title if name in about.peers else catalogue.PEERS.get(name, name)
        for name in catalogue.in_order(names, catalogue.PEERS)
    }


def table(scenario: catalogue.ScenarioText, samples: Sequence[Sample], about: About, names: dict[str, str]) -> Table:
    """The table of a scenario. There may be no samples. `names` are the titles of all peers."""
    metrics = catalogue.in_order(
        (metric for sample in samples for metric in sample.metrics), (metric.name for metric in catalogue.METRICS)
    )
    columns = sorted((catalogue.metric(name, scenario) for name in metrics), key=lambda column: not column.compared)
    blocks: dict[Variant, list[Sample]] = {}
    for sample in samples:
        blocks.setdefault(sample.conditions, []).append(sample)
    absent = [name for name in names if name not in {sample.peer for sample in samples}]
    unable = [name for name in absent if _is_unable(scenario, about, name)]
    return Table(
        scenario=scenario,
        columns=tuple(columns),
        blocks=tuple(_block(columns, found, names) for found in blocks.values()),
        unmeasured=tuple(names[name] for name in absent if name not in unable),
        unable=tuple(names[name] for name in unable),
    )


def _is_unable(scenario: catalogue.ScenarioText, about: About, peer: str) -> bool:
    facts = about.peers.get(peer)
    return facts is not None and bool(facts.capabilities) and not scenario.needs <= facts.capabilities


def _block(columns: Sequence[catalogue.MetricText], samples: Sequence[Sample], names: dict[str, str]) -> Block:
    rows = [_row(columns, rounds, samples, names) for rounds in group(samples).values()]
    order = {name: rank for rank, name in enumerate(names)}
    first = samples[0]
    shared = set(first.conditions)
    # In the order of the scenario, which names the important items first.
    title = formatting.variant((name, value) for name, value in first.variant.items() if (name, value) in shared)
    return Block(title, tuple(sorted(rows, key=lambda row: order[row.peer])))


def _row(
    columns: Sequence[catalogue.MetricText], rounds: Sequence[Sample], block: Sequence[Sample], names: dict[str, str]
) -> Row:
    first = rounds[0]
    own = formatting.variant(item for item in first.variant.items() if item not in first.conditions)
    bound = sum(sample.load_bound for sample in rounds)
    mark = f"load-bound in {bound} of {len(rounds)} rounds" if bound else ""
    cells = tuple(_cell(column, rounds, block) for column in columns)
    return Row(first.peer, names[first.peer], own, mark, cells)


def _cell(column: catalogue.MetricText, rounds: Sequence[Sample], block: Sequence[Sample]) -> Cell | None:
    width = spread(rounds, column.name)
    if width is None:
        return None
    text = formatting.quantity(column.name, width.median)
    if not column.compared:
        return Cell(text)
    around = formatting.interval(column.name, width) if width.count > 1 else ""
    peer = rounds[0].peer
    ours = [sample for sample in block if sample.peer == OURS]
    relative = None if peer == OURS else ratio([*rounds, *ours], peer, OURS, column.name)
    if relative is None:
        return Cell(text, around)
    return Cell(text, around, formatting.times(relative), (relative > 1) == column.greater_is_better)
