"""Publishes the messages of one worker in one run by the schedule, and measures how late they are sent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from typing import Final

from beaconfire.loadtest.client import LoadClient
from beaconfire.loadtest.histogram import Histogram
from beaconfire.loadtest.messages import encode_data
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.results import Results
from beaconfire.loadtest.schedule import Schedule
from beaconfire.loadtest.timer import PreciseTimer
from beaconfire.loadtest.worker_messages import StartRun

_WAIT_MIN_NS: Final = 300_000
"""Messages that become due within this time are sent together."""

_WAIT_MAX_NS: Final = 50_000_000
"""A longer wait is divided, so that `stop` has an effect soon."""

_BATCH_MAX: Final = 200
"""Messages that are sent without a pause when many are due. The event loop reads from the connections in between."""

_CPU_MIN_S: Final = 0.1
"""A shorter time is too short to measure the CPU share."""


class RunPublisher:
    """A message whose publisher's connection has ended is not sent, and no deliveries of it are expected.

    `late` is the delay from when messages were due until they were sent. `cpu` is CPU time per elapsed time.
    """

    def __init__(
        self, plan: Plan, worker: int, run: StartRun, clients: Mapping[int, LoadClient], results: Results
    ) -> None:
        self._plan = plan
        self._subscribers = run.subscribers
        self._clients = clients
        self._results = results
        self._schedule = Schedule(plan, worker, start_ns=run.start_ns, rate=run.rate, duration_s=run.duration_s)
        self._start_ns = run.start_ns
        self._start_cpu_s = 0.0
        self.late = Histogram()
        self.sent = 0
        self.expected = 0
        self.cpu = 0.0

    @property
    def done(self) -> bool:
        return self._schedule.next_message is None

    def stop(self) -> None:
        self._schedule.end()

    async def run(self) -> None:
        """Publishes until the end of the schedule."""
        with PreciseTimer() as timer:
            await self._publish_on_time(timer)

    async def _publish_on_time(self, timer: PreciseTimer) -> None:
        started = False
        while (due_ns := self._schedule.next_due_ns) is not None:
            now_ns = self._results.now_ns()
            await timer.wait_until(min(max(due_ns, now_ns + _WAIT_MIN_NS), now_ns + _WAIT_MAX_NS))
            now_ns = self._results.now_ns()
            if not started and now_ns >= self._start_ns:
                started, self._start_cpu_s = True, time.process_time()
            for message, message_due_ns in islice(self._schedule.take(now_ns), _BATCH_MAX):
                self._publish(message, message_due_ns)
            self._measure_cpu()

    def _publish(self, message: int, due_ns: int) -> None:
        client = self._clients.get(self._plan.publisher(message))
        if client is None or not client.ready:
            return
        channel = message % self._plan.channels
        client.publish(channel, encode_data(due_ns, message, self._plan.payload_bytes))
        self.late.record(self._results.now_ns() - due_ns)
        self.sent += 1
        self.expected += self._subscribers[channel]

    def _measure_cpu(self) -> None:
        elapsed_s = (self._results.now_ns() - self._start_ns) / 1e9
        if elapsed_s > _CPU_MIN_S:
            self.cpu = (time.process_time() - self._start_cpu_s) / elapsed_s
