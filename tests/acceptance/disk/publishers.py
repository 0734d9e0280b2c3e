"""Publishers that go on after the server was killed, and a record of what the server has acknowledged to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from tests.acceptance.deadlines import DEADLINE_S, wait_until
from tests.acceptance.disk.api_connection import ApiConnection, read_history

Repetition: TypeAlias = Literal["never", "key", "producer"]
"""What a publisher does with a publication that was not answered or was refused: nothing, because it may have been
stored, or repeat it with the same idempotency key or number."""

REPETITIONS: Final[tuple[Repetition, ...]] = ("never", "key", "producer")

RETRY_S = 0.02


class Receipt(NamedTuple):
    """Where the server says that a publication is."""

    channel: str
    epoch: str
    offset: int


class Record:
    """What was sent, and what was acknowledged."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.receipts: dict[str, Receipt] = {}
        self.refused: list[dict[str, Any]] = []
        """The errors of publications that were refused."""
        self.refused_in_a_row = 0
        """How many publications were refused since the last one was acknowledged."""
        self.publishers = 0
        """How many publishers have used this record."""

    async def wait_acknowledged(self, count: int, deadline_s: float = DEADLINE_S) -> None:
        """Waits until the server has acknowledged this many more publications."""
        enough = len(self.receipts) + count
        await wait_until(lambda: len(self.receipts) >= enough, f"{count} more are acknowledged", deadline_s)

    async def wait_refused(self, count: int = 1) -> None:
        """Waits until so many publications in a row are refused."""
        await wait_until(lambda: self.refused_in_a_row >= count, f"{count} publications in a row are refused")

    async def check(self, port: int, channels: list[str], *, same_epochs: bool = True) -> None:
        """Fails unless the history of each channel has all offsets from 1 on and in one epoch, everything that was
        acknowledged where it should be, nothing twice, and nothing else than what was sent.

        Without `same_epochs` the epochs may have changed since the acknowledgement.
        """
        stored: Counter[str] = Counter()
        found: dict[Receipt, str] = {}
        for channel in channels:
            publications, epoch = await read_history(port, channel)
            assert [offset for offset, _ in publications] == list(range(1, len(publications) + 1))
            for offset, data in publications:
                stored[data] += 1
                found[Receipt(channel, epoch, offset)] = data
        assert stored.keys() <= self.sent
        assert [data for data, count in stored.items() if count > 1] == []
        epochs = {receipt.channel: receipt.epoch for receipt in found}
        lost = []
        for data, receipt in self.receipts.items():
            epoch = receipt.epoch if same_epochs else epochs[receipt.channel]
            if found.get(receipt._replace(epoch=epoch)) != data:
                lost.append(receipt)
        assert lost == []
        print(f"{len(self.receipts)} acknowledged, {len(stored) - len(self.receipts)} stored without an answer")


class Publisher:
    """Publishes to one channel, one publication after the other, until it is cancelled."""

    def __init__(self, name: str, channel: str, repetition: Repetition, record: Record, padding: str = "") -> None:
        self._name = name
        self._channel = channel
        self._repetition = repetition
        self._record = record
        self._padding = padding

    async def run(self, port: int) -> None:
        """Connects again whenever the connection ends."""
        number = 1
        while True:
            try:
                async with ApiConnection.open(port) as api:
                    while True:
                        if await self._publish(api, number) or self._repetition == "never":
                            number += 1
                        else:
                            await asyncio.sleep(RETRY_S)
            except (OSError, EOFError):
                if self._repetition == "never" and self._data(number) in self._record.sent:
                    number += 1
                await asyncio.sleep(RETRY_S)

    async def _publish(self, api: ApiConnection, number: int) -> bool:
        """False if the server has refused the publication."""
        data = self._data(number)
        fields: dict[str, object] = {}
        if self._repetition == "key":
            fields = {"idempotency_key": data}
        elif self._repetition == "producer":
            fields = {"producer": self._name, "seq": number}
        self._record.sent.add(data)
        response = await api.call("publish", channel=self._channel, data=data, **fields)
        if "result" not in response:
            self._record.refused.append(response["error"])
            self._record.refused_in_a_row += 1
            return False
        result = response["result"]
        assert result["durability"] == "disk"
        self._record.receipts[data] = Receipt(self._channel, result["epoch"], result["offset"])
        self._record.refused_in_a_row = 0
        return True

    def _data(self, number: int) -> str:
        return f"{self._name}-{number}{self._padding}"


@asynccontextmanager
async def publishing(
    port: int, channels: list[str], record: Record, count: int, padding: str = "", *, repeat: bool = True
) -> AsyncIterator[None]:
    """Runs `count` publishers until the context ends. They end at once then, so the answer of some is not known.

    `padding` makes each publication longer. Without `repeat` no publisher repeats a publication.
    """
    async with AsyncExitStack() as stack:
        for number in range(count):
            repetition = REPETITIONS[number // len(channels) % 3] if repeat else "never"
            channel = channels[number % len(channels)]
            record.publishers += 1
            publisher = Publisher(f"p{record.publishers}", channel, repetition, record, padding)
            task = asyncio.create_task(publisher.run(port))
            stack.push_async_callback(_end, task)
        yield


async def _end(task: asyncio.Task[None]) -> None:
    failed = task.done()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        assert not failed
