"""The channels that this node is attached to at the broker.

A channel is attached before its first subscriber reads history, and detached some time after its last subscriber left.
**Every** subscriber waits for the attach that is on its way: a subscriber that did not wait could miss publications
without noticing. Detaching is delayed, so that a channel whose only subscriber reconnects stays attached.

Theory of operation. For each channel at most one call is on its way, and what is wanted is looked at when the call has
ended: an attach that was asked for during a detach follows the detach, and a detach that has failed is repeated only
if the channel is still not needed. Channels that ask in the same turn of the event loop share a call.

When the link of the broker is lost, attachments are void, also those of calls on their way. The next subscriber then
waits for the link, and attaches again. Whoever is told of the link attaches the other channels (see `node.healing`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.channels.link_state import LinkState
from beaconfire.engines.port import Broker

CHANNELS_PER_CALL: Final = 512
CALLS_MAX: Final = 8
"""Attach calls that are on their way at the same time. More channels wait, and share the next calls."""


class Attachments:
    """Attaches and detaches channels. `is_needed` tells whether a channel has subscribers on this node."""

    def __init__(
        self,
        broker: Broker,
        timers: Timers,
        background: BackgroundTasks,
        backoff: Backoff,
        detach_delay_s: float,
        timeout_s: float,
        is_needed: Callable[[str], bool],
    ) -> None:
        """`timeout_s` is how long a subscriber waits for an attach, including the wait for a lost link."""
        self._broker = broker
        self._timers = timers
        self._background = background
        self._backoff = backoff
        self._detach_delay_s = detach_delay_s
        self._timeout_s = timeout_s
        self._is_needed = is_needed
        self._link = LinkState()
        self._attached: set[str] = set()
        """Attached, and no detach is on its way or will be repeated."""
        self._unsure: set[str] = set()
        """Perhaps attached, although not in `_attached`: a call has failed or is on its way."""
        self._wanted: dict[str, asyncio.Future[None]] = {}
        """Channels that somebody waits for, with the future that all of them share."""
        self._queue: dict[str, None] = {}
        """Wanted channels whose attach can start: their link is up and no call is on its way."""
        self._deadlines: deque[tuple[float, str, asyncio.Future[None]]] = deque()
        self._calling: set[str] = set()
        """Channels with a call on its way."""
        self._voided: set[str] = set()
        """Channels with a call on its way that began before their link was lost."""
        self._calls = 0
        """Attach calls on their way."""
        self._is_starting = False
        self._lingering: deque[tuple[float, str]] = deque()
        self._is_closed = False

    def close(self) -> None:
        """Nothing is attached or detached any more. Subscribers that wait get EngineUnavailable in time."""
        self._is_closed = True

    # Attaching

    async def attach(self, channel: str) -> None:
        """Returns when later publications in the channel reach this node. The subscriber must be in the hub already.

        Raises EngineUnavailable if the link is not up in time, and what the broker raises. All subscribers that wait
        for the same attach get the same error, and the next one tries again.
        """
        if channel in self._attached:
            return
        if self._background.engine_suspends or channel in self._calling:
            await asyncio.shield(self._want(channel))
        else:
            await self._attach_at_once([channel])

    async def attach_all(self, channels: Sequence[str]) -> BaseException | None:
        """Tries to attach all of these channels. Afterwards `is_attached` tells which of them are. Never raises an
        `Exception`: the first failure is the result."""
        missing = [channel for channel in channels if channel not in self._attached]
        if not missing:
            return None
        if self._background.engine_suspends:
            waiting = [self._want(channel) for channel in missing]
            await asyncio.wait(waiting)
            failures = [future.exception() for future in waiting]
            return next((failure for failure in failures if failure is not None), None)
        try:
            await self._attach_at_once(missing)
        except Exception as error:  # noqa: BLE001 - reported; the caller looks which channels are attached
            self._background.report(error)
            return error
        return None

    def is_attached(self, channel: str) -> bool:
        return channel in self._attached

    def __len__(self) -> int:
        return len(self._attached)

    async def _attach_at_once(self, channels: Sequence[str]) -> None:
        """With an engine that never suspends, whose link is seldom lost."""
        for channel in channels:
            if self._link.is_down(channel):
                raise EngineUnavailable(f"attach {channel!r}: the link of the broker is lost; try again later")
        try:
            await self._broker.attach(channels)
        except BaseException:
            self._unsure.update(channels)
            raise
        self._attached.update(channels)
        self._unsure.difference_update(channels)

    def _want(self, channel: str) -> asyncio.Future[None]:
        """The future of the attach that is on its way, or of the next one."""
        future = self._wanted.get(channel)
        if future is None:
            future = self._wanted[channel] = asyncio.get_running_loop().create_future()
            if not self._deadlines:
                self._timers.after(self._timeout_s, self._give_up_due)
            self._deadlines.append((self._timers.clock.now_s() + self._timeout_s, channel, future))
            self._enqueue(channel)
        return future

    def _give_up_due(self) -> None:
        now_s = self._timers.clock.now_s()
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, channel, future = self._deadlines.popleft()
            if not future.done():
                self._queue.pop(channel, None)
                del self._wanted[channel]
                _fail(future, EngineUnavailable(f"attach {channel!r}: no answer within {self._timeout_s:g} s"))
        if self._deadlines:
            self._timers.at(self._deadlines[0][0], self._give_up_due)

    def _enqueue(self, channel: str) -> None:
        if channel not in self._calling and not self._link.is_down(channel):
            self._queue[channel] = None
            self._start_attaching()

    def _start_attaching(self) -> None:
        if self._queue and not self._is_starting and self._calls < CALLS_MAX and not self._is_closed:
            self._is_starting = True
            self._background.start(self._attach_queued())

    async def _attach_queued(self) -> None:
        """Attaches the channels that have asked in this turn of the event loop, as far as one call takes them."""
        await asyncio.sleep(0)
        self._is_starting = False
        channels = list(islice(self._queue, CHANNELS_PER_CALL))
        for channel in channels:
            del self._queue[channel]
        if not channels:
            return
        self._calls += 1
        self._calling.update(channels)
        self._unsure.update(channels)
        self._start_attaching()
        error = None
        try:
            await self._broker.attach(channels)
        except Exception as failure:  # noqa: BLE001 - the subscribers that wait get the failure
            error = failure
        finally:
            self._calls -= 1
            self._calling.difference_update(channels)
        for channel in channels:
            self._end_attach(channel, error)
        self._start_attaching()

    def _end_attach(self, channel: str, error: Exception | None) -> None:
        future = self._wanted.get(channel)
        if channel in self._voided:
            self._voided.discard(channel)
            if future is not None:
                self._enqueue(channel)
                return
        elif error is None:
            self._attached.add(channel)
            self._unsure.discard(channel)
        if future is not None:
            del self._wanted[channel]
            if error is None:
                future.set_result(None)
            else:
                _fail(future, error)
        if not self._is_needed(channel):
            self.release(channel)  # its subscribers have gone meanwhile

    # Detaching

    def release(self, channel: str) -> None:
        """Detaches the channel after the delay, if it has no subscribers then."""
        if not self._lingering:
            self._timers.after(self._detach_delay_s, self._detach_due)
        self._lingering.append((self._timers.clock.now_s() + self._detach_delay_s, channel))

    def _detach_due(self) -> None:
        now_s = self._timers.clock.now_s()
        due: dict[str, None] = {}
        while self._lingering and self._lingering[0][0] <= now_s:
            due[self._lingering.popleft()[1]] = None
        if self._lingering:
            self._timers.at(self._lingering[0][0], self._detach_due)
        self._detach_unneeded(due, 0)

    def _detach_unneeded(self, channels: Iterable[str], failures: int) -> None:
        """Detaches those channels that have no subscribers. A channel with an attach on its way is looked at again when
        the attach has ended."""
        unneeded = [
            channel
            for channel in (channels if not self._is_closed else ())
            if (channel in self._attached or channel in self._unsure)
            and channel not in self._calling
            and channel not in self._wanted
            and not self._is_needed(channel)
        ]
        for start in range(0, len(unneeded), CHANNELS_PER_CALL):
            batch = unneeded[start : start + CHANNELS_PER_CALL]
            # Not attached from now on: a subscriber that comes while the broker detaches must attach again.
            self._attached.difference_update(batch)
            self._unsure.update(batch)
            self._calling.update(batch)
            self._background.start_engine_work(self._detach(batch, failures))

    async def _detach(self, channels: Sequence[str], failures: int) -> None:
        error = None
        try:
            await self._broker.detach(channels)
        except Exception as failure:  # noqa: BLE001 - reported; the detach is repeated
            error = failure
            self._background.report(failure)
        finally:
            self._calling.difference_update(channels)
        repeated = []
        for channel in channels:
            if error is None or channel in self._voided:
                self._unsure.discard(channel)
            else:
                repeated.append(channel)
            self._voided.discard(channel)
            if channel in self._wanted:
                self._enqueue(channel)
        if repeated:
            delay_s = self._backoff.delay_s(failures + 1)
            self._timers.after(delay_s, lambda: self._detach_unneeded(repeated, failures + 1))

    # The link

    def link_down(self, channels: Sequence[str] | None) -> None:
        """The attachments of these channels are void, None: of all channels."""
        self._link.down(channels)
        if channels is None:
            self._voided.update(self._calling)
            self._attached.clear()
            self._unsure.intersection_update(self._calling)
            self._queue.clear()
            return
        self._voided.update(channel for channel in channels if channel in self._calling)
        self._attached.difference_update(channels)
        self._unsure.difference_update(channel for channel in channels if channel not in self._calling)
        for channel in channels:
            self._queue.pop(channel, None)

    def link_up(self, channels: Sequence[str] | None) -> None:
        """These channels can be attached again, None: all channels."""
        self._link.up(channels)
        for channel in list(self._wanted):
            self._enqueue(channel)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    """Ends the wait with an error. All subscribers that wait may have gone meanwhile: then nobody looks at the error,
    and the event loop must not report that."""
    future.set_exception(error)
    future.exception()
