"""Thousands of random interleavings: nothing is lost, doubled or left over."""

from __future__ import annotations

from collections import Counter

import pytest

from beaconfire.model.events import ChannelHealed, Event, WorkDropped
from tests.simulation.runs import FIRST_SEED, SEEDS, simulate
from tests.simulation.simulation import Simulation

BLOCKS = 10


def count(simulation: Simulation) -> Counter[str]:
    """How often things happened in one run."""
    found: Counter[str] = Counter()
    for client in simulation.clients:
        found.update(vars(client.counts))
    if (handlers := simulation.handlers) is not None:
        found["decisions"] = handlers.made
        found["decisions cancelled"] = handlers.cancelled
        found["decisions beside an rpc"] = handlers.beside
    nodes = simulation.nodes.all
    found["second nodes"] = len(nodes) - 1
    found["links lost"] = sum(each.links_lost for each in nodes)
    found["quiet moments"] = simulation.quiet_moments
    found["walks interrupted"] = sum(each.interrupted for each in nodes)
    found["pieces"] = simulation.recorder.limits().count("client.reply_max_size")
    found["late decisions"] = simulation.recorder.limits().count("client.decision_timeout")
    healed = [event.bridged for event in simulation.recorder.of(ChannelHealed)]
    figures = [each.node.statistics() for each in nodes]
    found["reads saved"] = sum(each.reads_requested_total - each.reads_total for each in figures)
    found["bridged"], found["told"] = healed.count(True), healed.count(False)
    return found


EXPECTED = {
    "received": 9.0,
    "recovered": 0.6,
    "unrecovered": 0.5,
    "patched": 0.3,
    "filtered": 1.0,
    "conflated": 1.0,
    "members_seen": 4.0,
    "answered": 1.0,
    "refused": 0.5,
    "server_side": 1.0,
    "decisions": 10.0,
    "decisions cancelled": 1.0,
    "decisions beside an rpc": 0.01,
    "late decisions": 0.2,
    "second nodes": 0.3,
    "links lost": 0.3,
    "bridged": 0.1,
    "told": 0.05,
    "quiet moments": 0.5,
    "walks interrupted": 3.0,
    "pieces": 0.1,
    "reads saved": 0.4,
}
"""The least average of a run. A simulation without events would pass as well."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_publications_arrive_once_and_in_order(block: int) -> None:
    """In every interleaving, a client gets each publication once and in order, or learns that some are missing.

    Presence, joins and leaves tell who is subscribed on all nodes, each command has one answer, and in the end nothing
    is left: no subscription, no attached channel, no presence entry, no decision and no task.
    """
    found: Counter[str] = Counter()
    seeds = range(FIRST_SEED + block, FIRST_SEED + SEEDS, BLOCKS)
    for seed in seeds:
        found.update(count(simulate(seed)))
    if len(seeds) >= 200:  # fewer runs may differ much from the average
        missing = {name: found[name] for name, least in EXPECTED.items() if found[name] < least * len(seeds)}
        assert missing == {}


def test_a_seed_determines_its_run() -> None:
    """So the seed of a failure is all that is needed to find its cause."""

    def events(seed: int) -> list[Event]:
        return simulate(seed).recorder.events

    assert [len(events(seed)) for seed in range(20)] == [len(events(seed)) for seed in range(20)]
    assert events(1) == events(1)


def test_no_work_is_dropped_while_links_hold() -> None:
    """Joins, leaves and subscribes of the server API reach everybody unless the engine fails for long. A detach that
    begins while its node stops is not needed."""
    for seed in range(100):
        dropped = simulate(seed, loses_announcements=False).recorder.of(WorkDropped)
        assert [event for event in dropped if event.work != "shutdown"] == []
