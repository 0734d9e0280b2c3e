"""Engines whose calls are slow, hang and fail, as a test or random numbers decide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.timers import Timers
from beaconfire.engines.interceptor import EngineCall, InterceptedEngine, intercept
from beaconfire.engines.port import Engine, MemberChange
from beaconfire.model.publication import ClientInfo

T = TypeVar("T")

LIFETIME_CALLS: Final = frozenset({"start", "stop", "control_start", "control_stop"})
"""Calls that begin and end the use of an engine."""

_SEQUENCES_OF_TEXT: Final = frozenset({"attach", "detach", "presence_remove", "presence_refresh"})


class CallControl(Protocol):
    """Decides how long a call takes and whether it fails. Calls have the names of `interceptor.EngineCall`."""

    async def before(self, call: str, subject: str) -> None:
        """Runs before the call takes effect. An exception becomes the failure of the call, without effect.

        `subject` is what the call is about: channels, clients, changes or a node, separated by spaces.
        """

    async def after(self, call: str, subject: str) -> None:
        """Runs after the call has taken effect and before it returns. An exception becomes the failure of the call."""


def control_calls(engine: Engine, calls: CallControl) -> InterceptedEngine:
    """The same engine, but `calls` delays its calls and makes them fail. Callbacks are not affected."""
    return intercept(engine, ControlledCalls(calls))


class ControlledCalls:
    """Implements `CallInterceptor`: see `control_calls`."""

    def __init__(self, calls: CallControl) -> None:
        self._calls = calls

    async def call(
        self, name: EngineCall, running: Coroutine[Any, Any, T], *arguments: object, waits_s: float = 0.0
    ) -> T:
        try:
            if name in _SEQUENCES_OF_TEXT:
                assert not isinstance(arguments[-1], str), f"{name}: a str is a sequence of names with one letter"
            subject = " ".join(word for argument in arguments for word in _words(argument))
            await self._calls.before(name, subject)
        except BaseException:
            running.close()  # The call has no effect.
            raise
        result = await running
        await self._calls.after(name, subject)
        return result


def _words(argument: object) -> Iterable[str]:
    """The words of a subject."""
    match argument:
        case str():
            return (argument,)
        case ClientInfo():
            return (argument.client,)
        case MemberChange():
            return ("join" if argument.joined else "leave", argument.info.client)
        case Mapping():
            return tuple(argument)
        case Sequence():
            return tuple(word for each in argument for word in _words(each))
        case _:
            raise AssertionError(f"not a subject of an engine's call: {argument!r}")


class ManualCalls:
    """Holds calls back, or makes them fail, at the request of a test. Any other call does not suspend."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, bool], asyncio.Event] = {}
        self._failures: dict[tuple[str, bool], Exception] = {}
        self.when_changed: Callable[[], None] = lambda: None
        """Called when calls are held back or released."""
        self.completed: list[str] = []
        """Name and subject of every call that was neither held back nor failed before its effect, in order, without
        those that start and stop the engine: `attach news`, `announce news join client1`."""

    def hold(self, call: str, after: bool = False) -> Callable[[], None]:
        """Makes later calls wait: before their effect, or `after` it. A call that waits can be cancelled.

        The returned function releases the calls that came before another `hold`.
        """
        held = self._held[call, after] = asyncio.Event()
        self.when_changed()

        def release() -> None:
            held.set()
            self.when_changed()

        return release

    @property
    def is_holding(self) -> bool:
        """Whether any call would wait."""
        return any(not held.is_set() for held in self._held.values())

    def release(self, call: str, after: bool = False) -> None:
        """Releases the calls that wait, and does not hold later calls back."""
        self._held.pop((call, after)).set()
        self.when_changed()

    def fail_next(self, call: str, error: Exception, after: bool = False) -> None:
        """Makes the next of these calls raise `error`: before its effect, or `after` it."""
        self._failures[call, after] = error

    async def before(self, call: str, subject: str) -> None:
        """See `CallControl.before`."""
        await self._run(call, False)
        if call not in LIFETIME_CALLS:
            self.completed.append(f"{call} {subject}")

    async def after(self, call: str, subject: str) -> None:
        """See `CallControl.after`."""
        await self._run(call, True)

    async def _run(self, call: str, after: bool) -> None:
        held = self._held.get((call, after))
        if held is not None:
            await held.wait()
        if (call, after) in self._failures:
            raise self._failures.pop((call, after))  # a local variable would keep the frames of the failure alive


class RandomCalls:
    """Makes every call slow and some calls fail or hang, except those that start and stop the engine.

    Each call takes `delay_s` seconds on the clock of `timers`, half of them before its effect. It fails with the
    probability `failure_rate` and hangs for ever with `hang_rate`, each time before or after its effect with equal
    probability. `random` returns numbers in [0, 1): with `random.Random(seed).random` a run can be repeated.
    """

    def __init__(
        self,
        timers: Timers,
        random: Callable[[], float],
        delay_s: float = 0.0,
        failure_rate: float = 0.0,
        hang_rate: float = 0.0,
    ) -> None:
        self._timers = timers
        self._random = random
        self._delay_s = delay_s
        self._failure_rate = failure_rate
        self._hang_rate = hang_rate
        self.failures = 0
        """How many calls failed or began to hang."""

    async def before(self, call: str, subject: str) -> None:
        """See `CallControl.before`."""
        await self._run(call)

    async def after(self, call: str, subject: str) -> None:
        """See `CallControl.after`."""
        await self._run(call)

    async def _run(self, call: str) -> None:
        if call in LIFETIME_CALLS:
            return
        await self._timers.wait(self._delay_s / 2)
        number = self._random() * 2  # This runs twice for each call.
        if number < self._failure_rate:
            self.failures += 1
            raise EngineUnavailable(f"{call}: a failure that RandomCalls has made")
        if number < self._failure_rate + self._hang_rate:
            self.failures += 1
            await asyncio.get_running_loop().create_future()
