"""Publishes by the schedule, and counts how late it was itself."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice
from typing import Final

from beaconfire.loadtest.client import Client
from beaconfire.loadtest.dialect import mark
from beaconfire.loadtest.histogram import Histogram
from beaconfire.loadtest.ledger import Ledger
from beaconfire.loadtest.metronome import Metronome
from beaconfire.loadtest.orders import Go
from beaconfire.loadtest.plan import Plan
from beaconfire.loadtest.schedule import Schedule

_TICK_NS: Final = 300_000
"""The shortest wait: what is due meanwhile leaves together."""

_NAP_NS: Final = 50_000_000
"""The longest wait in one piece, so that an order to halt is obeyed soon."""

_TURN_MAX: Final = 200
"""Messages sent in one go when many are due, so that reading has its turn as well."""


class Publisher:
    """One run of one worker. What a dead connection should have published is not sent, and so not expected."""

    def __init__(self, plan: Plan, worker: int, go: Go, clients: Mapping[int, Client], ledger: Ledger) -> None:
        self._plan = plan
        self._members = go.members
        self._clients = clients
        self._ledger = ledger
        self._schedule = Schedule(plan, worker, start_ns=go.start_ns, rate=go.rate, duration_s=go.duration_s)
        self._start_ns = go.start_ns
        self._late = Histogram()
        self._cpu_s = 0.0
        self.sent = 0
        self.expected = 0
        self.cpu = 0.0

    @property
    def late(self) -> Histogram:
        return self._late

    @property
    def done(self) -> bool:
        return self._schedule.next_message is None

    def halt(self) -> None:
        self._schedule.end()

    async def run(self) -> None:
        """Until the end of the schedule."""
        with Metronome() as metronome:
            await self._keep_time(metronome)

    async def _keep_time(self, metronome: Metronome) -> None:
        began = False
        while (due_ns := self._schedule.next_due_ns) is not None:
            now_ns = self._ledger.now_ns()
            await metronome.wait_until(min(max(due_ns, now_ns + _TICK_NS), now_ns + _NAP_NS))
            now_ns = self._ledger.now_ns()
            if not began and now_ns >= self._start_ns:
                began, self._cpu_s = True, time.process_time()
            for message, message_due_ns in islice(self._schedule.take(now_ns), _TURN_MAX):
                self._publish(message, message_due_ns)
            self._measure_cpu()

    def _publish(self, message: int, due_ns: int) -> None:
        client = self._clients.get(self._plan.publisher(message))
        if client is None or not client.is_in:
            return
        channel = message % self._plan.channels
        client.publish(channel, mark(due_ns, message, self._plan.payload_bytes))
        self._late.record(self._ledger.now_ns() - due_ns)
        self.sent += 1
        self.expected += self._members[channel]

    def _measure_cpu(self) -> None:
        passed_s = (self._ledger.now_ns() - self._start_ns) / 1e9
        if passed_s > 0.1:  # before that it says nothing
            self.cpu = (time.process_time() - self._cpu_s) / passed_s
