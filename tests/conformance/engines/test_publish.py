"""Publishing: which announcements are made, with which position, and in which order."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.errors import NOT_AVAILABLE, CommandError
from beaconfire.engines.port import NO_HISTORY, Durability, HistoryOptions, MemberChange, PublishOptions
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo

from .harness import HISTORY, KEPT, Announced, Harness, Run

ANN = ClientInfo("ann", "c1", Raw(b'{"name":"Ann"}'), Raw(b"[1]"))
BOB = ClientInfo("bob", "c2")


def test_offsets_start_at_one_and_rise_by_one(run: Run) -> None:
    """The outcomes of each channel have consecutive offsets of one epoch."""

    async def scenario(h: Harness) -> None:
        for channel in ("a", "b"):
            positions = [(await h.publish(channel)).position for _ in range(5)]
            assert [position.offset for position in positions] == [1, 2, 3, 4, 5]
            assert len({position.epoch for position in positions}) == 1

    run(scenario)


def test_epochs_are_unique_names(run: Run) -> None:
    """An epoch is neither empty nor the reserved "_", and two streams have different epochs."""

    async def scenario(h: Harness) -> None:
        epochs = [(await h.publish(f"channel-{number}")).position.epoch for number in range(20)]
        assert len(set(epochs)) == 20
        assert not {"", "_"} & set(epochs)

    run(scenario)


def test_a_publication_arrives_as_it_was_published(run: Run) -> None:
    """Payload bytes, publisher, tags, exclusions and position reach the node and history unchanged."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        options = PublishOptions(history=HISTORY, exclude=("c7", "c9"), delta=True)
        outcome = await h.engine.broker.publish("a", Raw(b'{"x": 1 }'), options, ANN, {"kind": "test"})
        await h.settle()
        assert len(h.node.publications) == 1
        announced = h.node.publications[0]
        assert announced.channel == "a"
        assert announced.exclude == ("c7", "c9")
        assert announced.delta is True
        assert announced.epoch == outcome.position.epoch
        page = await h.engine.broker.history("a", HISTORY, -1)
        for publication in (announced.publication, page.publications[0]):
            assert bytes(publication.data) == b'{"x": 1 }'
            assert publication.info == ANN
            assert publication.tags == {"kind": "test"}
            assert publication.offset == outcome.position.offset == 1

    run(scenario)


def test_payloads_are_any_bytes(run: Run) -> None:
    """An engine does not interpret payloads: binary, empty and large ones stay the same."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        payloads = [b"", bytes(range(256)), b"\r\n$-1\r\n", b"x" * 300_000]
        for payload in payloads:
            await h.publish("a", payload)
        await h.settle()
        assert h.node.payloads("a") == payloads
        page = await h.engine.broker.history("a", HISTORY, -1)
        assert [bytes(publication.data) for publication in page.publications] == payloads
        assert page.publications[0].info is None
        assert page.publications[0].tags is None

    run(scenario)


def test_the_empty_payload_stays_the_empty_payload(run: Run) -> None:
    """Encoders recognize `NO_PAYLOAD` by identity, so missing data must not become empty data."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        await h.engine.broker.publish("a", NO_PAYLOAD, KEPT, BOB)
        await h.settle()
        page = await h.engine.broker.history("a", HISTORY, -1)
        for publication in (h.node.publications[0].publication, page.publications[0]):
            assert publication.data is NO_PAYLOAD
            assert publication.info == BOB
            assert publication.info.conn_info is NO_PAYLOAD

    run(scenario)


def test_the_first_publication_of_a_stream_names_the_epoch(run: Run) -> None:
    """The publication with offset 1 carries the epoch, for clients that subscribed before the stream existed. Others do
    not carry it.
    """

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        epoch = (await h.publish("a")).position.epoch
        await h.publish("a")
        await h.settle()
        assert [announced.publication.epoch for announced in h.node.publications] == [epoch, ""]
        assert [announced.epoch for announced in h.node.publications] == [epoch, epoch]

    run(scenario)


def test_without_history_there_is_no_position(run: Run) -> None:
    """With no history, no size or no time to live, a publication has offset 0 and no epoch, and is not stored."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        for history in (NO_HISTORY, HistoryOptions(size=0, ttl_s=60.0), HistoryOptions(size=10, ttl_s=0.0)):
            outcome = await h.publish("a", b"1", PublishOptions(history=history))
            assert outcome.position == StreamPosition(0, "")
            assert outcome.suppressed == ""
        await h.settle()
        assert [(a.publication.offset, a.publication.epoch, a.epoch) for a in h.node.publications] == [(0, "", "")] * 3
        assert await h.offsets("a") == []

    run(scenario)


def test_a_publication_without_history_does_not_change_the_stream(run: Run) -> None:
    """In a channel that has a stream, it takes no offset and is not in history."""

    async def scenario(h: Harness) -> None:
        first = await h.publish("a")
        assert (await h.publish("a", options=PublishOptions())).position == StreamPosition(0, "")
        assert (await h.publish("a")).position == StreamPosition(2, first.position.epoch)
        assert await h.offsets("a") == [1, 2]

    run(scenario)


def test_a_publication_is_stored_before_it_is_announced(run: Run) -> None:
    """A reader that has seen the announcement finds the publication in history, and the top is not behind it."""

    async def scenario(h: Harness) -> None:
        readings: list[asyncio.Task[tuple[int, list[int], int]]] = []

        async def read(offset: int) -> tuple[int, list[int], int]:
            page = await h.engine.broker.history("a", HISTORY, -1)
            return offset, [publication.offset for publication in page.publications], page.position.offset

        def look(announced: Announced) -> None:
            readings.append(asyncio.get_running_loop().create_task(read(announced.publication.offset)))

        h.node.when_publication = look
        await h.engine.broker.attach(["a"])
        for _ in range(20):
            await h.publish("a")
        await h.settle()
        results = await asyncio.gather(*readings)
        assert [offset for offset, _, _ in results] == list(range(1, 21))
        assert all(offset in stored and top >= offset for offset, stored, top in results)

    run(scenario)


def test_concurrent_publishers_share_one_order(run: Run) -> None:
    """Concurrent publishers get different offsets, and announcements are made in the order of offsets."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        outcomes: dict[bytes, int] = {}

        async def publisher(name: int) -> None:
            for number in range(10):
                payload = b"%d-%d" % (name, number)
                outcomes[payload] = (await h.publish("a", payload)).position.offset
                await asyncio.sleep(0)

        await asyncio.gather(*(publisher(name) for name in range(10)))
        await h.settle()
        assert sorted(outcomes.values()) == list(range(1, 101))
        assert h.node.offsets("a") == list(range(1, 101))
        assert [outcomes[payload] for payload in h.node.payloads("a")] == list(range(1, 101))
        page = await h.engine.broker.history("a", HISTORY, -1)
        assert [bytes(publication.data) for publication in page.publications] == h.node.payloads("a")

    run(scenario)


def test_publishing_from_an_announcement_keeps_the_order(run: Run) -> None:
    """A node that publishes during an announcement gets all announcements in order."""

    async def scenario(h: Harness) -> None:
        answers: list[asyncio.Task[None]] = []

        async def answer() -> None:
            await h.publish("a")
            await h.publish("b")

        def react(announced: Announced) -> None:
            if announced.channel == "a" and announced.publication.offset < 50:
                answers.append(asyncio.get_running_loop().create_task(answer()))

        h.node.when_publication = react
        await h.engine.broker.attach(["a"])
        await h.engine.broker.attach(["b"])
        await h.publish("a")
        await h.node.wait_received(50 + 49)
        await asyncio.gather(*answers)
        await h.settle()
        assert h.node.offsets("a") == list(range(1, 51))
        assert h.node.offsets("b") == list(range(1, 50))

    run(scenario)


def test_only_attached_channels_are_announced(run: Run) -> None:
    """A publication in a channel that is not attached is stored but not announced."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        await h.publish("b")
        await h.engine.broker.announce("b", [MemberChange(True, ANN)])
        await h.publish("a")
        await h.settle()
        assert [announced.channel for announced in h.node.publications] == ["a"]
        assert len(h.node.received) == 1
        assert await h.offsets("b") == [1]

    run(scenario)


def test_after_attach_every_publication_is_announced(run: Run) -> None:
    """Also if attach is called several times."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", b"before")
        await h.engine.broker.attach(["a"])
        await h.publish("a", b"1")
        await h.engine.broker.attach(["a"])
        await h.publish("a", b"2")
        await h.settle()
        assert h.node.payloads("a") == [b"1", b"2"]

    run(scenario)


def test_detach_ends_announcements(run: Run) -> None:
    """Apart from announcements that were already on their way. A second detach has no effect."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        await h.engine.broker.attach(["a"])
        await h.publish("a", b"1")
        await h.engine.broker.detach(["a"])
        await h.engine.broker.detach(["a"])
        await h.engine.broker.detach(["never attached"])
        await h.settle()
        await h.publish("a", b"2")
        await h.engine.broker.announce("a", [MemberChange(False, ANN)])
        await h.settle()
        assert h.node.payloads("a") == [b"1"]
        assert len(h.node.received) == 1
        await h.engine.broker.attach(["a"])
        await h.publish("a", b"3")
        await h.settle()
        assert h.node.payloads("a") == [b"1", b"3"]

    run(scenario)


def test_joins_and_leaves_are_announced_in_order(run: Run) -> None:
    """They keep their order relative to publications, and take no offset."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        await h.engine.broker.announce("a", [MemberChange(True, ANN)])
        await h.publish("a", b"1")
        await h.engine.broker.announce("a", [MemberChange(True, BOB)])
        await h.engine.broker.announce("a", [MemberChange(False, ANN)])
        await h.publish("a", b"2")
        await h.settle()
        kinds = [
            ("pub", bytes(e.publication.data)) if isinstance(e, Announced) else (e[0], e[2]) for e in h.node.received
        ]
        assert kinds == [("join", ANN), ("pub", b"1"), ("join", BOB), ("leave", ANN), ("pub", b"2")]
        assert h.node.offsets("a") == [1, 2]

    run(scenario)


def test_one_call_announces_several_changes_in_order(run: Run) -> None:
    """No change is left out, also not of a client that leaves at once. Without changes nothing is announced."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        await h.engine.broker.announce("a", [])
        changes = [MemberChange(True, ANN), MemberChange(True, BOB), MemberChange(False, ANN), MemberChange(True, ANN)]
        await h.engine.broker.announce("a", changes)
        await h.settle()
        assert h.node.received == [("join", "a", ANN), ("join", "a", BOB), ("leave", "a", ANN), ("join", "a", ANN)]

    run(scenario)


def test_one_call_attaches_and_detaches_several_channels(run: Run) -> None:
    """Also if some of them are attached or detached already."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        await h.engine.broker.attach([])
        await h.engine.broker.attach(["a", "b", "c"])
        for channel in "abc":
            await h.publish(channel)
        await h.settle()
        assert sorted(announced.channel for announced in h.node.publications) == ["a", "b", "c"]
        await h.engine.broker.detach(["c", "d"])
        await h.engine.broker.detach(["a", "c"])
        await h.settle()
        for channel in "abcd":
            await h.publish(channel)
        await h.settle()
        assert [announced.channel for announced in h.node.publications[3:]] == ["b"]

    run(scenario)


def test_an_announcement_names_its_predecessor(run: Run) -> None:
    """`previous` is the offset of the publication before, also if that one is not retained any more. It is 0 for the
    first publication, and without history.
    """

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        small = PublishOptions(history=HistoryOptions(size=1, ttl_s=60.0))
        outcomes = [await h.publish("a", options=small) for _ in range(3)]
        await h.engine.broker.remove_history("a")
        outcomes.append(await h.publish("a", options=small))
        await h.publish("a", options=PublishOptions())
        outcomes.append(await h.publish("a", options=small))
        await h.settle()
        offsets = [outcome.position.offset for outcome in outcomes]
        stored = [announced for announced in h.node.publications if announced.publication.offset]
        assert [announced.publication.offset for announced in stored] == offsets
        assert [announced.previous for announced in stored] == [0, *offsets[:-1]]
        assert [announced.previous for announced in h.node.publications if not announced.publication.offset] == [0]

    run(scenario)


@pytest.mark.parametrize("durability", ["memory", "disk", "replicated"])
def test_a_durability_is_reached_or_refused(run: Run, durability: Durability) -> None:
    """The outcome names at least what was asked for. Otherwise error 108 names the durability and the engine, and
    nothing is stored or announced.
    """

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        options = PublishOptions(history=replace(HISTORY, durability=durability))
        if durability in h.durabilities:
            assert (await h.publish("a", options=options)).durability in h.durabilities
            return
        with pytest.raises(CommandError) as refused:
            await h.publish("a", options=options)
        assert refused.value.code is NOT_AVAILABLE
        assert repr(durability) in refused.value.detail
        assert h.engine.name in refused.value.detail
        await h.settle()
        assert h.node.received == []
        assert await h.offsets("a") == []

    run(scenario)
