"""Decides whether an engine works, from what the engine knows itself and from the outcomes of its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from beaconfire.base.timers import Timer, Timers
from beaconfire.engines.port import Engine, EngineState
from beaconfire.model.events import EngineStateChanged, EventSink

FAILURES_MAX: Final = 3
"""From this number of failed calls in a row, without an answer between them, the engine counts as down."""

CHECK_INTERVAL_S: Final = 1.0
"""How often the state is read, and how often an engine that is down is asked for an answer."""


class EngineHealth:
    """The state of one engine. The engine is down while it says so, or after `FAILURES_MAX` failed calls in a row.

    While the engine is down, `ping` is called at each check, so that the state becomes up without other calls. Each
    change of the state is emitted once, as `EngineStateChanged`.
    """

    def __init__(self, engine: Engine, timers: Timers, events: EventSink, ping: Callable[[], None]) -> None:
        """`ping` starts a call that ends in `answered` or in `failed`. It must not raise."""
        self._engine = engine
        self._timers = timers
        self._events = events
        self._ping = ping
        self.answers = 0
        """How many calls the engine has answered."""
        self._failures = 0
        self._problem = ""
        self._up = True
        """The state that was emitted last."""
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begins the checks. Has no effect if they have begun."""
        if self._timer is None:
            self._check_later()

    def stop(self) -> None:
        """Ends the checks. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self) -> None:
        """The engine has answered a call. A refusal is an answer as well."""
        self.answers += 1
        self._failures = 0
        if not self._up:
            self._emit_change()

    def failed(self, problem: str, answers: int) -> None:
        """The engine has not answered a call. `problem` says why, for operators.

        `answers` is the value of `answers` when the call began. If the engine has answered another call since then, the
        failure says nothing about the present: calls that were made while the engine hung may fail among the first
        answers after that.
        """
        if answers != self.answers:
            return
        self._failures += 1
        self._problem = problem
        if self._failures >= FAILURES_MAX and self._up:
            self._emit_change()

    def state(self) -> EngineState:
        """The state at this moment."""
        state = self._engine.state()
        if not state.up or self._failures < FAILURES_MAX:
            return state
        return EngineState(False, f"{self._failures} calls failed in a row: {self._problem}")

    def _check_later(self) -> None:
        self._timer = self._timers.after(CHECK_INTERVAL_S, self._check)

    def _check(self) -> None:
        self._check_later()
        self._emit_change()
        if not self._up:
            self._ping()

    def _emit_change(self) -> None:
        state = self.state()
        if state.up != self._up:
            self._up = state.up
            self._events.emit(EngineStateChanged(self._engine.name, state.up, state.detail))
