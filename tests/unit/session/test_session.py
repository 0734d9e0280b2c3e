"""One client's logical connection: its queue, its limits, what reaches it, and its end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.errors import FORCE_RECONNECT, SHUTDOWN, WRITE_ERROR
from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import SessionEnded
from beaconfire.model.pushes import MessagePush, SubscribePush
from beaconfire.session.session import SessionPhase
from tests.unit.kit import OPEN, RECOVERABLE, Client, World, settle

READING = ChannelOptions(
    allow_subscribe_for_client=True, allow_history_for_client=True, history_size=5, history_ttl=Seconds(60)
)


# --- the queue of commands


def test_commands_wait_for_the_one_that_waits() -> None:
    """Whatever they are, they are answered in order, each once."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        client = world.connect("ann")
        world.stops.hold("history")
        numbers = [
            client.send("history", channel="a"),
            client.send("publish", channel="a", data=1),
            client.send("subscribe", channel="a"),
            client.send("rpc"),
            client.send("unsubscribe", channel="a"),
        ]
        await settle()
        assert client.take() == []
        world.stops.release("history")
        await settle()
        assert [message["id"] for message in client.take() if "id" in message] == numbers

    asyncio.run(scenario())


def test_sessions_do_not_wait_for_one_another() -> None:
    """One that waits holds up nobody else."""

    async def scenario() -> None:
        world = World(READING)
        waiting, quick = world.connect("ann"), world.connect("bob")
        world.stops.hold("history")
        waiting.send("history", channel="a")
        await settle()
        assert quick.outcome("subscribe", channel="a") == 0
        world.stops.release("history")
        await settle()

    asyncio.run(scenario())


def test_reading_pauses_while_too_much_waits() -> None:
    """At the limit it pauses once, and goes on when the queue is empty."""

    async def scenario() -> None:
        world = World(READING, command_queue_max=3)
        client = world.connect("ann")
        world.stops.hold("history")
        numbers = [client.send("history", channel="a") for _ in range(3)]
        assert client.transport.reading == []
        numbers += [client.send("history", channel="a") for _ in range(5)]
        assert client.transport.reading == ["pause"]
        assert world.recorder.limits() == ["client.command_queue_max"]
        world.stops.release("history")
        await settle()
        assert client.transport.reading[-1] == "resume"
        assert client.transport.reading.count("pause") == 1
        assert [message["id"] for message in client.take()] == numbers

    asyncio.run(scenario())


def test_an_ended_session_handles_nothing_more() -> None:
    """Neither what waits nor what still comes in, and reading is not resumed."""

    async def scenario() -> None:
        world = World(RECOVERABLE, command_queue_max=1)
        client = world.connect("ann")
        world.stops.hold("history")
        client.send("history", channel="a")
        client.send("publish", channel="a", data=1)
        await settle()
        client.session.end(SHUTDOWN)
        client.send("publish", channel="a", data=2)
        client.session.on_control_frame(10)
        world.stops.release("history")
        await settle()
        assert client.transport.reading == ["pause"]
        assert not any(call.startswith("publish") for call in world.stops.passed)
        assert client.take() == []

    asyncio.run(scenario())


def test_a_command_that_ends_the_session_empties_the_queue() -> None:
    """From inside the task that was waiting."""

    async def scenario() -> None:
        world = World(RECOVERABLE)
        client = world.connect("ann")
        world.tokens.let_subscribe("t", "bob", "a")
        world.stops.hold("verify")
        client.send("subscribe", channel="a", token="t")
        client.send("publish", channel="a", data=1)
        await settle()
        world.stops.release("verify")
        await settle()
        assert client.ended == 3500
        assert not any(call.startswith("publish") for call in world.stops.passed)

    asyncio.run(scenario())


# --- limits


@pytest.mark.parametrize(("count", "code"), [(10, 0), (11, 3013)])
def test_messages_per_second(count: int, code: int) -> None:
    """Exactly the limit is fine; commands of one frame count one by one."""
    world = World(message_rate_limit=10)
    client = world.connect("ann")
    world.clock.advance(2)
    client.send_text("\n".join(f'{{"id":{number},"unsubscribe":{{"channel":"a"}}}}' for number in range(1, count + 1)))
    assert client.ended == code
    assert len(client.take()) == (0 if code else count), "nothing of the frame that was too much"
    assert world.recorder.limits() == (["client.message_rate_limit"] if code else [])


def test_bytes_per_second() -> None:
    """Whatever they are."""
    world = World(byte_rate_limit=Size(100))
    client = world.connect("ann")
    client.send_text('{"id":9,"publish":{"channel":"a","data":"' + "x" * 100 + '"}}')
    assert client.ended == 3013
    assert world.recorder.limits() == ["client.byte_rate_limit"]


def test_frames_without_messages_count() -> None:
    """Pings, pongs and fragments use up the same rate."""
    world = World(message_rate_limit=10)
    client = world.connect("ann")
    world.clock.advance(2)
    for _ in range(10):
        client.session.on_control_frame(0)
    assert client.ended == 0
    client.session.on_control_frame(0)
    assert client.ended == 3013


def test_the_rate_is_per_second() -> None:
    """A client that stays below it lives for ever."""
    world = World(message_rate_limit=10)
    client = world.connect("ann")
    for _ in range(20):
        world.clock.advance(1)
        for _ in range(10):
            client.session.on_control_frame(0)
    assert client.ended == 0


def test_a_slow_client_ends_alone() -> None:
    """With 3008 when more waits than may; its neighbours get everything, and its memory is given back."""
    world = World(queue_max_size=Size(1000))
    slow, quick = world.connect("ann", "news"), world.connect("bob", "news")
    slow.transport.writable = False
    for _ in range(30):
        world.publish("news", "x" * 50)
        world.turn()
    assert slow.ended == 3008
    assert (slow.transport.closed, quick.ended) == ((3008, "slow"), 0)
    assert len(quick.take()) == 30
    assert slow.session.waiting_bytes == 0
    assert world.recorder.limits() == ["client.queue_max_size"]
    assert world.node.hub.count("news") == 1


def test_a_client_that_reads_again_gets_what_waited() -> None:
    """In order, with nothing missing, as long as the limit was not reached."""
    world = World()
    client = world.connect("ann", "news")
    client.transport.writable = False
    world.publish("news", 1)
    world.turn()
    world.publish("news", 2)
    world.turn()
    assert world.node.statistics().queue_bytes > 0
    client.transport.writable = True
    client.session.on_writable()
    world.publish("news", 3)
    assert [push["pub"]["data"] for push in client.take_pushes()] == [1, 2, 3]
    assert world.node.statistics().queue_bytes == 0


def test_what_the_transport_holds_counts_as_waiting() -> None:
    """For the statistics: the kernel has not taken it yet."""
    world = World()
    client = world.connect("ann")
    client.transport.buffered_bytes = 70
    assert client.session.waiting_bytes == 70
    assert world.node.statistics().queue_bytes == 70


# --- what reaches the client


def test_everything_comes_in_the_order_it_was_said() -> None:
    """Replies, pushes and publications of one turn, in one write."""
    world = World()
    client = world.connect("ann", "news")
    client.transport.writes.clear()
    client.session.push(MessagePush(Raw(b"1")))
    number = client.send("unsubscribe", channel="other")
    client.session.push(MessagePush(Raw(b"2")))
    world.turn()
    assert len(client.transport.writes) == 1
    assert client.transport.writes[0].splitlines() == [
        b'{"push":{"message":{"data":1}}}',
        b'{"id":%d,"unsubscribe":{}}' % number,
        b'{"push":{"message":{"data":2}}}',
    ]


def test_a_push_that_is_not_json_ends_the_session() -> None:
    """With 3506; what was queued before it still goes out."""
    world = World()
    client = world.connect("ann")
    client.session.push(MessagePush(Raw(b"1")))
    client.session.push(SubscribePush("news", data=Raw(b"\xff")))
    assert client.ended == 3506
    assert [push["message"]["data"] for push in client.take_pushes()] == [1]


def test_messages_are_counted() -> None:
    """In and out, with their bytes and the writes they took."""
    world = World()
    ann, _ = world.connect("ann", "news"), world.connect("bob", "news")
    before = world.node.statistics()
    text = '{"id":9,"publish":{"channel":"news","data":1}}'
    ann.send_text(text)
    world.turn()
    after = world.node.statistics()
    assert after.messages_in_total - before.messages_in_total == 1
    assert after.bytes_in_total - before.bytes_in_total == len(text)
    assert after.messages_out_total - before.messages_out_total == 3, "a reply and two publications"
    assert after.writes_total - before.writes_total == 2
    assert after.bytes_out_total - before.bytes_out_total == sum(
        len(write) for client in (ann, _) for write in client.transport.writes[-1:]
    )


# --- the end


def test_the_end_lets_go_of_everything() -> None:
    """Subscriptions, registry, timers; queued messages go out first, then code and reason."""
    world = World(RECOVERABLE)
    client = world.connect("ann", "a", "b")
    client.session.push(MessagePush(Raw(b'"last words"')))
    client.session.end(FORCE_RECONNECT, "because")
    assert client.transport.closed == (3011, "force reconnect")
    assert client.transport.writes[-1] == b'{"push":{"message":{"data":"last words"}}}\n'
    assert client.session.subscriptions == {}
    assert client.session.phase is SessionPhase.ENDED
    assert len(world.node.registry) == 0
    assert world.node.hub.statistics().subscriptions == 0
    assert world.node.registry.open == set()
    assert world.node.registry.closing == {client.session}
    client.session.on_closed()
    assert world.node.registry.closing == set()
    world.pass_time(60)
    assert len(world.timers) == 0
    assert world.attached() == 0


def test_the_end_is_once() -> None:
    """However often it is asked for, and whoever comes first; one report."""
    world = World()
    client = world.connect("ann")
    client.session.end(SHUTDOWN)
    client.session.end(FORCE_RECONNECT)
    client.session.on_closed()
    client.session.on_closed()
    client.session.end(FORCE_RECONNECT)
    assert client.transport.closed == (3001, "shutdown")
    assert [event.code for event in world.recorder.of(SessionEnded)] == [3001]
    assert world.node.registry.closing == set()


def test_the_end_is_reported() -> None:
    """With who it was, why, and how long it lasted."""
    world = World()
    client = world.connect("ann")
    world.clock.advance(5)
    client.session.end(SHUTDOWN, "a detail")
    assert world.recorder.of(SessionEnded) == [
        SessionEnded(client.id, "ann", "test", "centrifuge-json", 3001, "shutdown", "a detail", 5.0)
    ]


@pytest.mark.parametrize(("arguments", "code"), [((), 3000), ((WRITE_ERROR,), 3009)])
def test_the_transport_may_end_it(arguments: tuple[Any, ...], code: int) -> None:
    """A cut is 3000, unless the transport gave up for a reason of its own; nobody is told."""
    world = World()
    client = world.connect("ann", "news")
    client.session.on_closed(*arguments)
    assert client.transport.closed is None
    assert [event.code for event in world.recorder.of(SessionEnded)] == [code]
    assert world.node.hub.statistics().subscriptions == 0


def test_a_transport_may_report_its_end_while_it_is_closed() -> None:
    """It calls back at once, out of `close`."""
    world = World()
    client = world.connect("ann")
    client.transport.when_closed = client.cut
    client.session.end(SHUTDOWN)
    assert world.node.registry.closing == set()
    assert [event.code for event in world.recorder.of(SessionEnded)] == [3001]


def test_publications_that_are_pending_go_out_before_the_end() -> None:
    """What was published before is still delivered, to the one who goes and to the others."""
    world = World()
    client, other = world.connect("ann", "news"), world.connect("bob", "news")
    world.publish("news", 1)
    client.session.end(SHUTDOWN)
    assert [push["pub"]["data"] for push in client.take_pushes()] == [1]
    assert [push["pub"]["data"] for push in other.take_pushes()] == [1]


def test_ending_all_of_a_channel_at_once() -> None:
    """Sessions that end one another's batches, joins and leaves do no harm."""
    options = ChannelOptions(
        allow_subscribe_for_client=True, presence=True, join_leave=True, force_push_join_leave=True
    )
    world = World(options)
    clients: list[Client] = [world.connect(f"user{number}", "news") for number in range(20)]
    world.publish("news", Raw(b"\xff"))
    world.turn()
    assert [client.ended for client in clients] == [3506] * 20
    assert world.presence("news") == set()
    assert world.node.hub.statistics().channels == 0
    world.turn()


def test_many_comings_and_goings_leave_nothing() -> None:
    """No session, subscription, timer or stream of the channel's attachment stays."""
    world = World(OPEN)
    for _ in range(300):
        client = world.connect("ann", "a", "b")
        client.cut()
    world.pass_time(60, step_s=5)
    assert world.node.registry.open == set()
    assert (len(world.timers), world.attached(), len(world.node.registry)) == (0, 0, 0)
    assert len(world.node.background) == 0
