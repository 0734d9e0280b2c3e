"""Several nodes on one engine: they share channels, history and presence, and send each other messages."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from beaconfire.engines.port import MemberChange, PublishOptions
from beaconfire.model.publication import ClientInfo

from .harness import HISTORY, NODE, Harness, Run

ANN, BOB = ClientInfo("ann", "c1", Raw(b'{"name":"Ann"}')), ClientInfo("bob", "c2")
OTHER = "node-2"
TTL_S = 60.0


def test_a_publication_reaches_every_node_that_has_attached_the_channel(run_nodes: Run) -> None:
    """With the same content and position, whichever node publishes. A node that has not attached it gets nothing."""

    async def scenario(h: Harness) -> None:
        other, third = await h.join(OTHER), await h.join("node-3")
        for member in (h, other):
            await member.engine.broker.attach(["a"])
        await third.engine.broker.attach(["b"])
        options = PublishOptions(history=HISTORY, exclude=("c9",), delta=True)
        await other.engine.broker.publish("a", Raw(b"1"), options, ANN, {"kind": "test"})
        await third.publish("a", b"2")
        await h.publish("a", b"3")
        await h.settle()
        assert h.node.payloads("a") == [b"1", b"2", b"3"]
        assert h.node.received == other.node.received
        assert third.node.received == []
        first = h.node.publications[0]
        assert (first.exclude, first.delta, first.publication.info) == (("c9",), True, ANN)
        assert [announced.previous for announced in h.node.publications] == [0, *h.node.offsets("a")[:2]]

    run_nodes(scenario)


def test_detaching_ends_the_announcements_of_one_node_only(run_nodes: Run) -> None:
    """Also if this node was the first to attach, or stops."""

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        for member in (h, other):
            await member.engine.broker.attach(["a", "b"])
        await h.engine.broker.detach(["a"])
        await h.settle()
        await other.publish("a", b"1")
        await other.publish("b", b"2")
        await h.settle()
        await other.stop()
        await h.publish("b", b"3")
        await h.settle()
        assert (h.node.payloads("a"), h.node.payloads("b")) == ([], [b"2", b"3"])
        assert (other.node.payloads("a"), other.node.payloads("b")) == ([b"1"], [b"2"])
        await other.start("node-2 again")
        await other.engine.broker.attach(["a"])
        await h.publish("a", b"4")
        await h.settle()
        assert other.node.payloads("a") == [b"1", b"4"]

    run_nodes(scenario)


def test_all_nodes_see_one_order(run_nodes: Run) -> None:
    """Concurrent publications, joins and leaves of several nodes have the same order on every node."""

    async def scenario(h: Harness) -> None:
        members = [h, await h.join(OTHER), await h.join("node-3")]
        for member in members:
            await member.engine.broker.attach(["a", "b"])

        async def work(number: int) -> None:
            member, info = members[number % 3], ClientInfo("user", f"c{number}")
            for channel in "ab":
                await member.engine.broker.announce(channel, [MemberChange(True, info)])
                await member.publish(channel, str(number).encode())
                await member.engine.broker.announce(channel, [MemberChange(False, info)])

        await asyncio.gather(*(work(number) for number in range(30)))
        await h.settle()
        for channel in "ab":
            orders = [
                [entry for entry in member.node.received if channel in (entry[0], entry[1])] for member in members
            ]
            assert len(orders[0]) == 90
            assert orders[0] == orders[1] == orders[2]
            assert h.node.offsets(channel) == await h.offsets(channel)

    run_nodes(scenario)


def test_history_is_the_same_on_every_node(run_nodes: Run) -> None:
    """Positions, pages and continuity; keys and versions suppress across nodes; removal is seen by all."""

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        first = await h.publish("a", b"1", PublishOptions(history=HISTORY, idempotency_key="k", version=5))
        repeated = await other.publish("a", b"1", PublishOptions(history=HISTORY, idempotency_key="k"))
        assert (repeated.suppressed, repeated.position) == ("idempotency", first.position)
        assert (await other.publish("a", b"0", PublishOptions(history=HISTORY, version=5))).suppressed == "version"
        second = (await other.publish("a", b"2")).position
        for member in (h, other):
            page = await member.engine.broker.history("a", HISTORY, -1, first.position)
            assert [bytes(publication.data) for publication in page.publications] == [b"2"]
            assert (page.position, page.continues) == (second, True)
            assert await member.engine.broker.positions({"a": HISTORY}) == {"a": second}
        await other.engine.broker.remove_history("a")
        assert await h.offsets("a") == []
        assert (await h.engine.broker.positions({"a": HISTORY}))["a"] == second

    run_nodes(scenario)


def test_presence_is_the_same_on_every_node(run_nodes: Run) -> None:
    """Clients of all nodes are in members and stats, and any node can refresh or remove an entry."""

    async def scenario(h: Harness) -> None:
        one, two = h.engine.presence, (await h.join(OTHER)).engine.presence
        await one.add("a", [ANN], TTL_S)
        await two.add("a", [BOB], TTL_S)
        for presence in (one, two):
            assert await presence.members("a") == {"c1": ANN, "c2": BOB}
            assert (await presence.stats("a")).num_clients == 2
        await h.advance(40.0)
        assert list(await two.refresh("a", ["c1"], TTL_S)) == []
        await h.advance(40.0)
        assert await one.members("a") == {"c1": ANN}
        assert list(await one.refresh("a", ["c1", "c2"], TTL_S)) == ["c2"]
        await two.remove("a", ["c1"])
        assert await one.members("a") == {}

    run_nodes(scenario)


def test_a_broadcast_reaches_every_live_node(run_nodes: Run) -> None:
    """Including the sender, and in the order of sending for each sender."""

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        for number in range(20):
            await h.engine.control.broadcast(b"a%d" % number)
            await other.engine.control.broadcast(b"b%d" % number)
        await h.settle()
        for member in (h, other):
            for sender in (b"a", b"b"):
                assert [each for each in member.node.control if each.startswith(sender)] == [
                    sender + b"%d" % number for number in range(20)
                ]
        await other.engine.control.stop()
        await h.engine.control.broadcast(b"alone")
        await h.settle()
        assert (h.node.control[-1], len(other.node.control)) == (b"alone", 40)

    run_nodes(scenario)


def test_a_message_to_one_node_reaches_no_other(run_nodes: Run) -> None:
    """In order together with the broadcasts of the same sender. A node that has stopped is not live."""

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        assert sorted(await h.engine.control.nodes()) == sorted(await other.engine.control.nodes()) == [NODE, OTHER]
        await h.engine.control.broadcast(b"1")
        assert await h.engine.control.send(OTHER, b"2") is True
        await h.engine.control.broadcast(b"3")
        assert await other.engine.control.send(NODE, b"4") is True
        await h.settle()
        assert other.node.control == [b"1", b"2", b"3"]
        assert sorted(h.node.control) == [b"1", b"3", b"4"]
        await other.engine.control.stop()
        assert await h.engine.control.send(OTHER, b"5") is False
        assert list(await h.engine.control.nodes()) == [NODE]

    run_nodes(scenario)


def test_a_survey_asks_every_live_node(run_nodes: Run) -> None:
    """The answers come in any order. Concurrent surveys get their own answers."""

    async def scenario(h: Harness) -> None:
        other = await h.join(OTHER)
        other.node.answer = b"other"
        surveys = (
            h.engine.control.survey(b"1", 5.0),
            h.engine.control.survey(b"2", 5.0),
            other.engine.control.survey(b"3", 5.0),
        )
        answers = await asyncio.gather(*surveys)
        assert [sorted(each) for each in answers] == [
            [b"other %d" % number, b"pong %d" % number] for number in (1, 2, 3)
        ]
        await other.engine.control.stop()
        assert await h.engine.control.survey(b"4", 5.0) == [b"pong 4"]

    run_nodes(scenario)
