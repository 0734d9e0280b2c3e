"""One read of history for all subscribers of a channel that ask at about the same time.

When a node ends, its clients return to the other nodes within seconds, and each of them recovers. Without this module,
the engine would get one read for each client.

Theory of operation. A subscriber needs a read that begins after the subscriber has asked. Before it asks, it is in the
hub and its channel is attached, so it holds every publication that such a read does not contain (see
`delivery.subscription`). A read that is on its way already may not contain a publication that was announced before the
subscriber was in the hub. So all that ask during a read wait until it has ended. Then its page serves them, if the hub
knows of nothing newer: see `kept_pages`. Otherwise they share the next read. However many ask during one read, the
engine gets one more read at most.

Subscribers that come back have different positions. Positions that are close to each other share a read from the lowest
one, and each subscriber gets its part of the page. Where the page does not tell whether history continues from a
position, the engine is asked again with exactly this position.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks, run_all
from beaconfire.channels.kept_pages import KeptPages
from beaconfire.channels.read_requests import ReadRequest, group, part_of
from beaconfire.engines.port import Broker, HistoryOptions, HistoryPage
from beaconfire.model.position import StreamPosition

ANSWERS_PER_TURN: Final = 32
"""How many subscribers of this node get their page in one turn of the event loop. Each of them encodes a reply, so some
thousand of them together would keep the event loop busy for too long."""


Waiter: TypeAlias = "asyncio.Future[HistoryPage]"
Waiting: TypeAlias = dict[ReadRequest, list[Waiter]]


class SharedReads:
    """Reads history for subscribers, with an engine that suspends.

    `requests_total` counts what subscribers have asked for, `reads_total` the calls of the engine.
    """

    def __init__(
        self,
        broker: Broker,
        background: BackgroundTasks,
        runtime: Runtime,
        announced: Callable[[str], StreamPosition | None],
    ) -> None:
        """`announced` is `Hub.announced`."""
        self._broker = broker
        self._background = background
        self._schedule = runtime.schedule
        self._kept = KeptPages(runtime.timers, announced)
        self._waiting: dict[str, Waiting] = {}
        """The requests for the next reads, for each channel whose reads are running or about to begin."""
        self._answers: deque[tuple[Waiter, HistoryPage | Exception]] = deque()
        """What subscribers get in this turn of the event loop and in the next ones."""
        self._removals = 0
        """Counts `forget`."""
        self.requests_total = 0
        self.reads_total = 0

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """Like `Broker.history`. See `ReadRequest` for the arguments.

        The subscriber must be in the hub and its channel attached. What the page lacks is given to the hub after this
        call, so the subscriber holds it. A failed read raises the same error in all callers that share it. A caller
        that is cancelled does not disturb the others. A caller waits for the end of the reads of its channel that are
        on their way, and then for its own.
        """
        self.requests_total += 1
        request = ReadRequest(options, limit, since, reverse)
        waiter: Waiter = asyncio.get_running_loop().create_future()
        page = self._kept.find(channel, request)
        if page is not None:
            self._answer([waiter], page)
            return await waiter
        waiting = self._waiting.get(channel)
        if waiting is None:
            waiting = self._waiting[channel] = {}
            self._background.start(self._run(channel))
        waiting.setdefault(request, []).append(waiter)
        return await waiter

    def forget(self, channel: str) -> None:
        """The history of the channel was removed. Reads that are on their way may still contain it, so their pages
        serve only those that wait for them."""
        self._removals += 1
        self._kept.forget(channel)

    async def _run(self, channel: str) -> None:
        """Reads until nobody waits any more."""
        waiting: Waiting = {}
        try:
            await asyncio.sleep(0)  # all that ask in this turn of the event loop share the first read
            while self._waiting[channel]:
                waiting, self._waiting[channel] = self._waiting[channel], {}
                groups = group(self._without_kept(channel, waiting))
                await run_all((self._read(channel, waiting, each) for each in groups), concurrently=len(groups) > 1)
        except BaseException:
            # The node drops this work. Those that wait for it must not wait for ever.
            for waiters in (*waiting.values(), *self._waiting[channel].values()):
                for waiter in waiters:
                    waiter.cancel()
            raise
        finally:
            del self._waiting[channel]

    def _without_kept(self, channel: str, waiting: Waiting) -> list[ReadRequest]:
        """The requests that need a read. The read before them may have left a page that serves the others."""
        needed = []
        for request, waiters in waiting.items():
            page = self._kept.find(channel, request)
            if page is None:
                needed.append(request)
            else:
                self._answer(waiters, page)
        return needed

    async def _read(self, channel: str, waiting: Waiting, group: list[ReadRequest]) -> None:
        """One read for a group of requests, unless nobody waits any more. Never raises an `Exception`."""
        group = [request for request in group if not all(waiter.done() for waiter in waiting[request])]
        if not group:
            return
        lowest, highest = group[0], group[-1]
        limit = lowest.limit + highest.offset - lowest.offset
        self.reads_total += 1
        removals = self._removals
        try:
            page = await self._broker.history(channel, lowest.options, limit, lowest.since, lowest.reverse)
        except Exception as error:  # noqa: BLE001 - those that wait get the failure
            for request in group:
                self._answer(waiting[request], error)
            return
        if removals == self._removals:
            self._kept.keep(channel, lowest, page)
        unknown = []
        for request in group:
            part = part_of(page, lowest, request)
            if part is None:
                unknown.append(request)
            else:
                self._answer(waiting[request], part)
        await run_all((self._read(channel, waiting, [request]) for request in unknown), concurrently=True)

    def _answer(self, waiters: list[Waiter], answer: HistoryPage | Exception) -> None:
        """Answers on the next turns of the event loop, also those whose page was kept: many may come in one turn."""
        if not self._answers:
            self._schedule(self._answer_some)
        self._answers.extend((waiter, answer) for waiter in waiters)

    def _answer_some(self) -> None:
        for _ in range(min(ANSWERS_PER_TURN, len(self._answers))):
            waiter, answer = self._answers.popleft()
            if waiter.done():
                continue  # the caller was cancelled
            if isinstance(answer, HistoryPage):
                waiter.set_result(answer)
            else:
                waiter.set_exception(answer)
        if self._answers:
            self._schedule(self._answer_some)
