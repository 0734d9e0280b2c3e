"""A hub and several workers, whose events happen in a random order that one seed determines.

The hub, its connections, the engines of the workers and their nodes are the real ones. Only the sockets are not: see
`network`. Links are cut between any two bytes, the hub and the workers are killed and replaced, and workers do not read
for a while. In half of the simulations the data of the hub survives its end, and its engine suspends. Otherwise it is a
memory engine, whose streams begin new epochs. The clients and the checks are those of `tests.simulation`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine
from typing import Any

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.timers import Timers
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.node.cluster import ControlMessage
from tests.simulation.base import BaseSimulation, Choices
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import CHANNELS
from tests.simulation.client import SimulatedClient
from tests.simulation.node import Nodes
from tests.simulation.steps import RandomSteps
from tests.simulation.workers.network import Network
from tests.simulation.workers.processes import HubProcess, WorkerNode, inner_engine, run_turns
from tests.simulation.workers.publishers import Backends
from tests.simulation.workers.streams import HubStreams

START_TURNS_MAX = 1000


class WorkersSimulation(BaseSimulation[WorkerNode]):
    """`has_faults`: links are cut, and processes are killed and do not read. `persists`: the data of the hub survives
    its end."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        clock = ManualClock()
        self._epochs = itertools.count(1)
        self._clock = clock
        self.has_faults = rng.random() < 0.7
        self._timeout_s = 5.0 if self.has_faults else 1000.0
        self.persists = rng.random() < 0.5
        self.streams = HubStreams(self._new_memory())
        super().__init__(rng, clock, self.streams, RandomSteps(rng), self.has_faults, keeps_presence=False)
        self.network = Network(rng)
        self.dead: list[HubProcess | WorkerNode] = []
        self.calls: set[asyncio.Task[None]] = set()
        """Publishes, control messages and surveys. Each must end."""
        self._hubs = itertools.count(1)
        self._workers = itertools.count(1)
        self.uids: set[str] = set()
        self.hubs_killed = self.workers_killed = self.surveys = 0
        self.hub = self._new_hub()
        self.nodes = Nodes(rng, [self._new_worker() for _ in range(rng.choice((2, 2, 3)))])
        self.nodes.choose = self._choose_ready  # type: ignore[method-assign]
        self.backends = Backends(rng, self._find_ready, self.streams)
        self._add_clients(3)
        self.excuses.lost_replies = self.has_faults

    @property
    def presence(self) -> Any:  # type: ignore[override]
        return self.streams.engine.presence

    def _new_memory(self) -> MemoryEngine:
        return memory_engine(self._clock, lambda: f"epoch{next(self._epochs)}")

    def _new_hub(self) -> HubProcess:
        steps = self.steps if self.persists else None

        def make_engine(timers: Timers) -> Any:
            return inner_engine(self.streams, steps, timers, self._timeout_s, self.recorder)

        return HubProcess(self.rng, self.clock, self.network, next(self._hubs), make_engine, self.recorder)

    def _new_worker(self) -> WorkerNode:
        uid = f"worker{next(self._workers)}"
        self.uids.add(uid)
        return WorkerNode(self.rules, uid, self.clock, self.network, self.streams, not self.persists, self._timeout_s)

    def _find_ready(self) -> WorkerNode | None:
        ready = [each for each in self.nodes.all if each.is_ready]
        return self.rng.choice(ready) if ready else None

    def _choose_ready(self) -> WorkerNode:
        worker = self._find_ready()
        assert worker is not None, "no worker is ready"
        return worker

    async def _start(self) -> None:
        await self.hub.start()
        for each in self.nodes.all:
            each.start()
        for _ in range(START_TURNS_MAX):
            if all(each.is_ready for each in self.nodes.all):
                return
            await self._continue()
        raise BrokenGuarantee("the workers do not start")

    # Events

    def _call(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(call)
        self.calls.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.calls.discard(task)

    def _add_calls(self, choices: Choices) -> None:
        rng, network = self.rng, self.network
        self._finish_dead()
        if network.ready:
            choices.append((40, network.advance))
        if network.connecting.waiting:
            choices.append((4, network.connecting.take_one))
        if self.hub.turns:
            choices.append((12, lambda: self.hub.turns.popleft()()))
        if self.backends.repeating.waiting:
            choices.append((2, self.backends.repeating.take_one))
        if rng.random() < 0.1:
            choices.append((8, self._ask_nodes))
        if self.hub.dying is not None and self.hub.dying.done():
            choices.append((4, self._replace_hub))
        for slot, each in enumerate(self.nodes.all):
            if each.dying is not None or each.has_failed:
                choices.append((4, lambda slot=slot: self._replace_worker(slot)))  # type: ignore[misc]

    def _add_choices(self, each: WorkerNode, choices: Choices) -> None:
        if each.turns and each.dying is None:
            choices.append((10, each.run_turn))
        for end in each.endpoints:
            if end.is_stalled:
                choices.append((0.3, lambda end=end: setattr(end, "is_stalled", False)))  # type: ignore[misc]

    def _add_losses(self, choices: Choices) -> None:
        rng = self.rng
        if not self.has_faults:
            return
        ends = self.network.endpoints
        if ends and rng.random() < 0.03:
            choices.append((9, lambda: self.network.cut(rng.choice(ends))))
        if rng.random() < 0.01 and self.hub.dying is None:
            choices.append((9, self._kill_hub))
        if rng.random() < 0.01:
            choices.append((9, lambda: self._kill_worker(rng.randrange(len(self.nodes.all)))))
        if rng.random() < 0.02:
            choices.append((9, self._stall))

    def _stall(self) -> None:
        for end in self.rng.choice(self.nodes.all).endpoints:
            end.is_stalled = True

    def _kill_hub(self) -> None:
        self.hubs_killed += 1
        self.hub.kill()
        if not self.persists:
            self.streams.lose_all(self._new_memory())

    def _replace_hub(self) -> None:
        self.dead.append(self.hub)
        self.hub = self._new_hub()
        self._call(self.hub.start())

    def _kill_worker(self, slot: int) -> None:
        worker = self.nodes.all[slot]
        if worker.dying is None:
            self.workers_killed += 1
            for client in self.clients:
                if client.server is worker:
                    client.lose_server()
            worker.kill()

    def _replace_worker(self, slot: int) -> None:
        """A worker that could not start has ended as well."""
        worker = self.nodes.all[slot]
        if worker.dying is None:
            worker.kill()
        self.dead.append(worker)
        self.nodes.all[slot] = self._new_worker()
        self.nodes.all[slot].start()

    def _finish_dead(self) -> None:
        """What is left of dead processes ends by itself."""
        dying = [each for each in (*self.dead, *self.nodes.all, self.hub) if each.dying is not None]
        run_turns(dying)
        now_s = self.clock.now_s()
        self.dead = [each for each in self.dead if each.ends_s > now_s]

    def _advance_time(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds or self.rng.choice((0.05, 0.3, 1.1, 4.0)))
        for each in (self.hub, *self.nodes.all, *self.dead):
            each.timers.run_due()

    def _publish(self) -> None:
        self.published += 1
        self._call(self.backends.publish(self.rng.choice(CHANNELS), self.published))

    def _send_control_message(self) -> None:
        if self._find_ready() is not None:
            super()._send_control_message()

    def _send(self, each: WorkerNode, message: ControlMessage) -> None:
        self._call(self._send_once(each, message))

    async def _send_once(self, each: WorkerNode, message: ControlMessage) -> None:
        try:
            await each.node.cluster.send(message)
        except EngineUnavailable:
            assert self.loses_announcements, "a control message has failed without a cause"

    def _ask_nodes(self) -> None:
        each = self._find_ready()
        if each is not None:
            self._call(self._survey(each))

    async def _survey(self, each: WorkerNode) -> None:
        try:
            found = [info.uid for info in await each.node.cluster.nodes()]
        except EngineUnavailable:
            return
        self.surveys += 1
        if len(set(found)) != len(found) or each.uid not in found or not self.uids.issuperset(found):
            raise BrokenGuarantee(f"{each.uid}: the survey found {found}")

    def _connect(self, client: SimulatedClient) -> None:
        if self._find_ready() is not None:
            client.connect()

    # Checks

    def check_errors(self) -> None:
        super().check_errors()
        for task in self.calls:
            if task.done() and not task.cancelled():
                task.result()

    async def _check_settled(self) -> None:
        """All workers know each other, and a survey has all answers at once."""
        wanted = sorted(each.uid for each in self.nodes.all)
        for each in self.nodes.all:
            for name, asked in (
                ("nodes", asyncio.ensure_future(each.node.cluster._control.nodes())),
                ("survey", asyncio.ensure_future(each.node.cluster.nodes())),
            ):
                await self.complete_pending()
                if not asked.done():
                    asked.cancel()
                    raise BrokenGuarantee(f"{each.uid}: {name} does not end")
                found = [str(getattr(answer, "uid", answer)) for answer in asked.result()]
                if sorted(found) != wanted:
                    raise BrokenGuarantee(f"{each.uid}: {name} found {found} of {wanted}")

    def _check_detached(self) -> None:
        super()._check_detached()
        internal = {each.node.work.revocation_stream.channel for each in self.nodes.all}
        left = set(self.hub.hub._channels._receivers) - internal
        inner = set(self.streams.engine.broker._attached) - internal
        if left or inner:
            raise BrokenGuarantee(f"attached at the hub without subscribers: {left}, at its engine: {inner}")

    # The end

    def _restore(self) -> None:
        self.has_faults = False

    async def _continue(self) -> None:
        """Lets everything continue that does not wait for the time."""
        self._finish_dead()
        for each in self.nodes.all:
            for end in each.endpoints:
                end.is_stalled = False
        for waiting in (self.network.connecting, self.steps, self.backends.repeating):
            while waiting.waiting:
                waiting.take_one()
        run_turns((self.hub, *self.nodes.all))
        for end in self.network.ready:
            if end.can_advance:
                end.advance()
        if self.hub.dying is not None and self.hub.dying.done():
            self._replace_hub()
        for slot, worker in enumerate(self.nodes.all):
            if worker.has_failed or worker.dying is not None:
                self._replace_worker(slot)
        for _ in range(3):
            await asyncio.sleep(0)

    async def _deliver_pending(self) -> None:
        for _ in range(START_TURNS_MAX):
            await self._continue()
            if not self._is_busy:
                return
        raise BrokenGuarantee("bytes are on their way without an end")

    @property
    def _is_busy(self) -> bool:
        return bool(
            self.network.ready
            or self.network.connecting.waiting
            or self.steps.waiting
            or self.hub.turns
            or any(each.turns for each in self.nodes.all)
        )

    @property
    def is_engine_idle(self) -> bool:
        return not (self._is_busy or self.calls or self.dead) and all(each.is_up for each in self.nodes.all)

    async def _stop_engine(self) -> None:
        """Without a worker, the hub has no channel. Nothing waits forever in a process that has ended."""
        self.hub.kill()
        for turn in range(50):
            if turn % 5 == 4:
                self._advance_time(4.0)
            self._finish_dead()
            for end in self.network.ready:
                if end.can_advance:
                    end.advance()
            await asyncio.sleep(0)
        assert self.hub.dying is not None
        if not self.hub.dying.done() or self.calls or self.dead:
            raise BrokenGuarantee(f"something waits after the end: {self.hub.dying}, {self.calls}, {self.dead}")
