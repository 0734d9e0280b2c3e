"""Calls that run at the same time: each takes effect as one step, and none waits for another channel."""

from __future__ import annotations

import asyncio

from beaconfire.engines.port import HistoryPage, MemberChange, PublishOptions
from beaconfire.model.publication import ClientInfo

from .harness import HISTORY, Announced, Harness, Run

TTL_S = 60.0


def test_a_page_of_history_is_a_snapshot(run: Run) -> None:
    """While others publish, each page ends at its own position, without a gap, and pages never go back."""

    async def scenario(h: Harness) -> None:
        pages: list[HistoryPage] = []

        async def read() -> None:
            for _ in range(30):
                pages.append(await h.engine.broker.history("a", HISTORY, -1))
                await asyncio.sleep(0)

        async def publish() -> None:
            for _ in range(30):
                await h.publish("a")
                await asyncio.sleep(0)

        await asyncio.gather(read(), publish(), publish())
        for page in pages:
            offsets = [publication.offset for publication in page.publications]
            assert offsets == sorted(set(offsets))
            assert (offsets[-1] if offsets else 0) == page.position.offset
        tops = [page.position.offset for page in pages]
        assert tops == sorted(tops)
        assert len({page.position.epoch for page in pages}) == 1

    run(scenario)


def test_concurrent_first_uses_make_one_stream(run: Run) -> None:
    """Reads and publishes of a channel that nobody has used agree about its epoch."""

    async def scenario(h: Harness) -> None:
        reads = [h.engine.broker.history("a", HISTORY, 0) for _ in range(10)]
        publishes = [h.publish("a") for _ in range(10)]
        asked = [h.engine.broker.positions({"a": HISTORY}) for _ in range(10)]
        pages, outcomes, positions = await asyncio.gather(
            asyncio.gather(*reads), asyncio.gather(*publishes), asyncio.gather(*asked)
        )
        epochs = {page.position.epoch for page in pages}
        epochs |= {outcome.position.epoch for outcome in outcomes}
        epochs |= {answer["a"].epoch for answer in positions}
        assert len(epochs) == 1

    run(scenario)


def test_concurrent_versions_never_go_back(run: Run) -> None:
    """Of concurrent publishes with versions, those that are stored have rising versions in the order of offsets."""

    async def scenario(h: Harness) -> None:
        versions = [7, 3, 9, 1, 8, 2, 10, 4, 6, 5]
        outcomes = await asyncio.gather(
            *(h.publish("a", options=PublishOptions(history=HISTORY, version=version)) for version in versions)
        )
        stored = [
            (outcome.position.offset, version)
            for outcome, version in zip(outcomes, versions, strict=True)
            if not outcome.suppressed
        ]
        assert [version for _, version in sorted(stored)] == sorted(version for _, version in stored)
        assert max(version for _, version in stored) == 10
        assert await h.offsets("a") == sorted(offset for offset, _ in stored)

    run(scenario)


def test_an_attach_that_has_returned_misses_nothing(run: Run) -> None:
    """Channels are attached one by one while others publish. Each announcement after the attach arrives in order."""

    async def scenario(h: Harness) -> None:
        expected: dict[str, int] = {}
        channels = [f"channel-{number}" for number in range(20)]

        async def publish(channel: str) -> None:
            for _ in range(20):
                await h.publish(channel)
                await asyncio.sleep(0)

        async def attach(channel: str) -> None:
            for _ in range(len(channel)):
                await asyncio.sleep(0)
            await h.engine.broker.attach([channel])
            expected[channel] = (await h.engine.broker.history(channel, HISTORY, 0)).position.offset + 1

        await asyncio.gather(*(publish(channel) for channel in channels), *(attach(channel) for channel in channels))
        await h.settle()
        for channel in channels:
            offsets = h.node.offsets(channel)
            assert offsets == list(range(offsets[0] if offsets else 21, 21))
            assert offsets[:1] <= [expected[channel]]

    run(scenario)


def test_different_channels_are_attached_and_detached_at_the_same_time(run: Run) -> None:
    """Each channel is in the state of its own last call."""

    async def scenario(h: Harness) -> None:
        broker = h.engine.broker

        async def toggle(channel: str, times: int) -> None:
            for number in range(times):
                await (broker.detach([channel]) if number % 2 else broker.attach([channel]))

        await asyncio.gather(*(toggle(f"channel-{times}", times) for times in range(1, 20)))
        await h.settle()
        await asyncio.gather(*(h.publish(f"channel-{times}") for times in range(1, 20)))
        await h.settle()
        announced = {announced.channel for announced in h.node.publications}
        assert announced == {f"channel-{times}" for times in range(1, 20, 2)}

    run(scenario)


def test_presence_is_true_after_concurrent_changes(run: Run) -> None:
    """Each client is present if and only if its own last change was an add or a refresh that found it."""

    async def scenario(h: Harness) -> None:
        presence = h.engine.presence

        async def change(number: int) -> tuple[ClientInfo, bool]:
            info = ClientInfo(f"user{number % 3}", f"c{number}")
            await presence.add("a", [info], TTL_S)
            if number % 2:
                await presence.remove("a", [info.client])
            found = info.client not in await presence.refresh("a", [info.client, "stranger"], TTL_S)
            if number % 3 == 0:
                await presence.add("a", [info], TTL_S)
                found = True
            return info, found

        changes = await asyncio.gather(*(change(number) for number in range(60)))
        assert await presence.members("a") == {info.client: info for info, present in changes if present}
        assert sum(present for _, present in changes) == 40

    run(scenario)


def test_one_call_of_announce_is_not_torn_apart(run: Run) -> None:
    """Changes of one call stay together: no other announcement of the channel comes between them."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])

        async def announce(number: int) -> None:
            info = ClientInfo("user", f"c{number}")
            await h.engine.broker.announce("a", [MemberChange(True, info), MemberChange(False, info)])

        await asyncio.gather(*(announce(number) for number in range(20)), *(h.publish("a") for _ in range(20)))
        await h.settle()
        received = h.node.received
        joins = [
            index for index, entry in enumerate(received) if not isinstance(entry, Announced) and entry[0] == "join"
        ]
        assert len(joins) == 20
        for index in joins:
            join, leave = received[index], received[index + 1]
            assert not isinstance(leave, Announced)
            assert (leave[0], leave[2]) == ("leave", join[2])
        assert h.node.offsets("a") == list(range(1, 21))

    run(scenario)
