"""One read of history for all subscribers of a channel that ask at about the same time.

When a node ends, its clients return to the other nodes within seconds, and each of them recovers. Without this module,
the engine would get one read for each client.

Theory of operation. A subscriber needs a read that begins after the subscriber has asked. Before it asks, it is in the
hub and its channel is attached, so it holds every publication that such a read does not contain (see
`delivery.subscription`). A read that is on its way already may not contain a publication that was announced before the
subscriber was in the hub. So all that ask during a read wait, and share the next one, which begins when the read has
ended. However many ask during one read, the engine gets one more read.

Subscribers that come back have different positions. Positions that are close to each other share a read from the lowest
one, and each subscriber gets its part of the page. Where the page does not tell whether history continues from a
position, the engine is asked again with exactly this position.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from beaconfire.base.loop import Schedule
from beaconfire.base.tasks import BackgroundTasks, run_all
from beaconfire.engines.port import Broker, HistoryOptions, HistoryPage
from beaconfire.model.position import StreamPosition

SPREAD_MAX: Final = 256
"""How far the offsets may be apart that share a read. The page of a read has at most so many publications more than one
subscriber may get. Positions that are further apart have reads of their own."""

ANSWERS_PER_TURN: Final = 32
"""How many subscribers of this node get their page in one turn of the event loop. Each of them encodes a reply, so some
thousand of them together would keep the event loop busy for too long."""


class ReadRequest(NamedTuple):
    """The arguments of `Broker.history` without the channel. `limit` is 0 or more. With `reverse`, `since` is None."""

    options: HistoryOptions
    limit: int
    since: StreamPosition | None
    reverse: bool

    @property
    def offset(self) -> int:
        return 0 if self.since is None else self.since.offset

    @property
    def kind(self) -> ReadRequest:
        """Equal for requests that differ at most in the offset of `since`."""
        return self if self.since is None else self._replace(since=self.since._replace(offset=0))


Waiter: TypeAlias = "asyncio.Future[HistoryPage]"
Waiting: TypeAlias = dict[ReadRequest, list[Waiter]]


class SharedReads:
    """Reads history for subscribers, with an engine that suspends.

    `requests_total` counts what subscribers have asked for, `reads_total` the calls of the engine.
    """

    def __init__(self, broker: Broker, background: BackgroundTasks, schedule: Schedule) -> None:
        self._broker = broker
        self._background = background
        self._schedule = schedule
        self._waiting: dict[str, Waiting] = {}
        """The requests for the next reads, for each channel whose reads are running or about to begin."""
        self._answers: deque[tuple[Waiter, HistoryPage | Exception]] = deque()
        """What subscribers get in this turn of the event loop and in the next ones."""
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
        """Like `Broker.history`, from a moment after this call. See `ReadRequest` for the arguments.

        The subscriber must be in the hub and its channel attached. A failed read raises the same error in all callers
        that share it. A caller that is cancelled does not disturb the others. A caller waits for the end of the reads
        of its channel that are on their way, and then for its own.
        """
        self.requests_total += 1
        waiter: Waiter = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(channel)
        if waiting is None:
            waiting = self._waiting[channel] = {}
            self._background.start(self._run(channel))
        waiting.setdefault(ReadRequest(options, limit, since, reverse), []).append(waiter)
        return await waiter

    async def _run(self, channel: str) -> None:
        """Reads until nobody waits any more."""
        waiting: Waiting = {}
        try:
            await asyncio.sleep(0)  # all that ask in this turn of the event loop share the first read
            while self._waiting[channel]:
                waiting, self._waiting[channel] = self._waiting[channel], {}
                groups = group(waiting)
                await run_all((self._read(channel, waiting, each) for each in groups), concurrently=len(groups) > 1)
        except BaseException:
            # The node drops this work. Those that wait for it must not wait for ever.
            for waiters in (*waiting.values(), *self._waiting[channel].values()):
                for waiter in waiters:
                    waiter.cancel()
            raise
        finally:
            del self._waiting[channel]

    async def _read(self, channel: str, waiting: Waiting, group: list[ReadRequest]) -> None:
        """One read for a group of requests, unless nobody waits any more. Never raises an `Exception`."""
        group = [request for request in group if not all(waiter.done() for waiter in waiting[request])]
        if not group:
            return
        lowest, highest = group[0], group[-1]
        limit = lowest.limit + highest.offset - lowest.offset
        self.reads_total += 1
        try:
            page = await self._broker.history(channel, lowest.options, limit, lowest.since, lowest.reverse)
        except Exception as error:  # noqa: BLE001 - those that wait get the failure
            for request in group:
                self._answer(waiting[request], error)
            return
        unknown = []
        for request in group:
            part = part_of(page, lowest, request)
            if part is None:
                unknown.append(request)
            else:
                self._answer(waiting[request], part)
        await run_all((self._read(channel, waiting, [request]) for request in unknown), concurrently=True)

    def _answer(self, waiters: list[Waiter], answer: HistoryPage | Exception) -> None:
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


def group(requests: Iterable[ReadRequest]) -> list[list[ReadRequest]]:
    """Groups requests that can share a read. In each group, the offsets rise and are at most `SPREAD_MAX` apart."""
    groups: list[list[ReadRequest]] = []
    kinds: dict[ReadRequest, list[ReadRequest]] = {}
    for request in sorted(requests, key=lambda request: request.offset):
        alike = kinds.get(request.kind)
        if alike is None or request.offset - alike[0].offset > SPREAD_MAX:
            alike = kinds[request.kind] = []
            groups.append(alike)
        alike.append(request)
    return groups


def part_of(page: HistoryPage, lowest: ReadRequest, request: ReadRequest) -> HistoryPage | None:
    """The page that the engine would have returned for `request`, or None if that is not known.

    `page` was read for `lowest`, which differs from `request` at most by a lower offset, and with a limit that is
    larger by this difference at least. So no publication of the result is cut off.
    """
    publications, top = page.publications, page.position
    since = request.since
    if since is None or since == lowest.since:
        return HistoryPage(publications[: request.limit], top, page.continues)
    if since.epoch not in ("", top.epoch):
        return None  # only the engine knows up to which offset an earlier epoch belongs to the history
    start = bisect_right(publications, since.offset, key=lambda publication: publication.offset)
    # What continues from a position continues from each later one up to the top. And history has no gap after its
    # oldest publication.
    if since.offset > top.offset:
        continues = False
    elif page.continues or start > 0:
        continues = True
    else:
        return None  # the publication before the first one of the page may be before or after this position
    return HistoryPage(publications[start : start + request.limit], top, continues)
