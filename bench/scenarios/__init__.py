"""The scenarios of the benchmark. Each is a class with an entry here."""

from __future__ import annotations

from collections.abc import Mapping

from bench.scenarios.backend import Api
from bench.scenarios.base import Scenario
from bench.scenarios.ceiling import Ceiling
from bench.scenarios.connecting import Connect, GrowthConnections, Memory, Recover
from bench.scenarios.growth import GrowthChannels, GrowthHistory, GrowthSubscribers
from bench.scenarios.latency import LatencyAtFixedRate
from bench.scenarios.messaging import FanOut, OneToOne, Rooms
from bench.scenarios.stall import Stall


def all_scenarios() -> Mapping[str, Scenario]:
    """New instances by name, in the order in which they run."""
    scenarios: tuple[Scenario, ...] = (
        FanOut(),
        Ceiling(),
        Rooms(),
        OneToOne(),
        Api(),
        Connect(),
        Recover(),
        LatencyAtFixedRate(),
        Memory(),
        GrowthSubscribers(),
        GrowthChannels(),
        GrowthHistory(),
        GrowthConnections(),
        Stall(),
    )
    return {scenario.name: scenario for scenario in scenarios}
