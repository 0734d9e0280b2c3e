"""What an engine that overrides nothing says about itself."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import Engine, EngineState, EngineStatistics, HistoryOptions, PublishOptions
from tests.unit.kit import run


def test_an_engine_is_up_and_keeps_nothing_in_this_process_by_default() -> None:
    """Its calls may suspend."""
    memory = memory_engine(ManualClock())
    engine = Engine("other", memory.broker, memory.presence, memory.control)
    assert engine.state() == EngineState(up=True)
    assert engine.sweep() is False
    assert engine.statistics() == EngineStatistics(0, 0)
    assert engine.suspends


def test_the_memory_engine_counts_what_it_keeps() -> None:
    """It is always up, and its calls never suspend."""
    engine = memory_engine(ManualClock())
    kept = PublishOptions(history=HistoryOptions(size=5, ttl_s=60.0))
    run(engine.broker.publish("news", Raw(b"1"), kept))
    assert engine.statistics().history_publications == 1
    assert engine.statistics().history_bytes == engine.broker.statistics().bytes > 0
    assert (engine.state().up, engine.suspends) == (True, False)
