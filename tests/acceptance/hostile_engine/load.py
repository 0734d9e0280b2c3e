"""What the clients do: join big and small rooms, publish, leave, lose their connections and come back."""

from __future__ import annotations

import asyncio
import time

from tests.acceptance.hostile_engine.client import CheckingClient
from tests.acceptance.hostile_engine.world import World

BIG_ROOM = 200
SMALL_ROOM = 10
KINDS = ("quiet", "lively", "seen")


def add_clients(world: World, count: int) -> None:
    """Each client is in one room of 200 and in two rooms of ten. A third of the rooms has presence only, a third also
    joins and leaves."""
    big, small = max(1, count // BIG_ROOM), max(2, count * 2 // SMALL_ROOM)
    for number in range(count):
        rooms = {f"big{number % big}", *(f"small{index}" for index in world.rng.sample(range(small), 2))}
        world.add_client([f"{kind_of(room)}:{room}" for room in sorted(rooms)])


def kind_of(room: str) -> str:
    return KINDS[int(room.lstrip("bigsmal")) % len(KINDS)]


class Load:
    """Lets each client but the first one act once in `pause_s` seconds on average, at random times."""

    def __init__(self, world: World, pause_s: float) -> None:
        self.world = world
        self.pause_s = pause_s
        self.tasks: set[asyncio.Task[None]] = set()
        self._ends_s = 0.0

    async def connect_all(self, per_second: float) -> None:
        for client in self.world.clients:
            self.world.open(client)
            await asyncio.sleep(1 / per_second)
            self.world.check_alive()

    async def run(self, seconds: float) -> None:
        """Returns when all actions have come to their end, and every client is connected or about to be."""
        self._ends_s = time.monotonic() + seconds
        for client in self.world.clients[1:]:
            self._act_later(client)
        while time.monotonic() < self._ends_s:
            await asyncio.sleep(0.05)
            self.world.check_alive()
        await self.world.wait_until(lambda: not self.tasks, 30, "the API has acknowledged every publication")

    def _act_later(self, client: CheckingClient) -> None:
        rng = self.world.rng
        delay_s = rng.expovariate(1 / self.pause_s)
        if time.monotonic() + delay_s < self._ends_s:
            self.world.timers.after(delay_s, lambda: self._act(client))

    def _act(self, client: CheckingClient) -> None:
        world, rng = self.world, self.world.rng
        self._act_later(client)
        if client.session is None:
            return
        choice = rng.random()
        # A message in a big room costs twenty times as much as one in a small room.
        big, *small = sorted(client.rooms)
        channel = big if rng.random() < 0.1 else rng.choice(small or [big])
        if choice < 0.5:
            client.publish(channel)
        elif choice < 0.7:
            self._start(client, channel)
        elif choice < 0.88:
            client.leave(rng.choice(list(client.rooms)), forgets=rng.random() < 0.5)
        else:
            world.counts["connections lost"] += 1
            world.drop(client)
            world.timers.after(rng.random() * 2, lambda: world.open(client))
        world.send(client)

    def _start(self, client: CheckingClient, channel: str) -> None:
        task = asyncio.get_running_loop().create_task(self.world.publish_by_api(client, channel))
        self.tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.failure = self.world.failure or error
