"""Checks of subscriptions, publications, presence and history."""

from __future__ import annotations

import asyncio
from typing import Any

import centrifuge

from tests.acceptance.sdk.python.peer import WAIT_DEADLINE_S, Peer, Room
from tests.acceptance.sdk.python.scenario import Scenario, check

PAGE_SIZE = 10


def _info(peer: Peer, info: Any) -> tuple[str, str, Any, Any]:
    return info.user, info.client, peer.decode(info.conn_info), peer.decode(info.chan_info)


def _expected(room: Room, user: str) -> tuple[str, str, Any, Any]:
    return user, room.peer.id, {"name": user}, {"role": "guest"}


async def _nobody_present(scenario: Scenario) -> None:
    """Returns when presence is empty: the engine removes an entry after the unsubscribe reply."""
    async with asyncio.timeout(WAIT_DEADLINE_S):
        while (await scenario.backend.call("presence", channel=scenario.channel))["presence"]:
            pass


@check
async def connect(scenario: Scenario) -> None:
    peer = await scenario.connected()
    context = peer.event_log.all("connected")[0]
    assert context.client
    assert isinstance(context.version, str)
    assert context.version


@check
async def subscribe(scenario: Scenario) -> None:
    peer = await scenario.connected()
    room = await peer.subscribe(scenario.channel, token=scenario.token(data={"topic": "fires"}))
    context = room.event_log.all("subscribed")[0]
    assert context.recoverable
    assert context.positioned
    assert context.stream_position.epoch
    assert context.stream_position.offset == 0
    assert not context.was_recovering
    assert not context.recovered
    assert peer.decode(context.data) == {"topic": "fires"}


@check
async def publish_echo(scenario: Scenario) -> None:
    room = await scenario.joined()
    await room.publish({"text": "fire! 烽火", "number": 1.50})
    await room.publish([1, None])
    await room.wait_publications({"text": "fire! 烽火", "number": 1.50}, [1, None])
    publications = [context.pub for context in room.event_log.all("publication")]
    assert [publication.offset for publication in publications] == [1, 2]
    assert [_info(room.peer, publication.info) for publication in publications] == [
        _expected(room, scenario.user("ann"))
    ] * 2


@check
async def second_client(scenario: Scenario) -> None:
    ann, bob = await scenario.joined("ann"), await scenario.joined("bob")
    for number in range(20):
        await ann.publish(number)
    await bob.wait_publications(*range(20))
    assert _info(bob.peer, bob.event_log.all("publication")[0].pub.info) == _expected(ann, scenario.user("ann"))


@check
async def across_codecs(scenario: Scenario) -> None:
    text, binary = await scenario.joined("ann", protobuf=False), await scenario.joined("bob", protobuf=True)
    await text.publish({"by": ["烽", 1.5]})
    await binary.publish({"by": "bob"})
    for room in (text, binary):
        await room.wait_publications({"by": ["烽", 1.5]}, {"by": "bob"})
        first, second = (context.pub.info for context in room.event_log.all("publication"))
        assert _info(room.peer, first) == _expected(text, scenario.user("ann"))
        assert _info(room.peer, second) == _expected(binary, scenario.user("bob"))


@check
async def backend_publication(scenario: Scenario) -> None:
    room = await scenario.joined()
    await scenario.backend.call("publish", channel=scenario.channel, data={"from": "backend"}, tags={"kind": "news"})
    await room.wait_publications({"from": "backend"})
    publication = room.event_log.all("publication")[0].pub
    assert publication.info is None
    assert publication.tags == {"kind": "news"}
    assert publication.offset == 1


@check
async def presence(scenario: Scenario) -> None:
    ann, bob = await scenario.joined("ann"), await scenario.joined("bob")
    answer = await ann.subscription.presence()
    assert {client: _info(ann.peer, info) for client, info in answer.clients.items()} == {
        ann.peer.id: _expected(ann, scenario.user("ann")),
        bob.peer.id: _expected(bob, scenario.user("bob")),
    }


@check
async def presence_stats(scenario: Scenario) -> None:
    ann = await scenario.joined("ann")
    await scenario.joined("ann")
    await scenario.joined("bob")
    stats = await ann.subscription.presence_stats()
    assert (stats.num_clients, stats.num_users) == (3, 2)


@check
async def join_leave(scenario: Scenario) -> None:
    ann = await scenario.joined("ann")
    own = await ann.event_log.wait("join")
    assert _info(ann.peer, own.info) == _expected(ann, scenario.user("ann"))
    bob, eve = await scenario.joined("bob"), await scenario.joined("eve")
    await ann.event_log.wait("join", number=3)
    await bob.subscription.unsubscribe()
    await ann.event_log.wait("leave")
    await eve.peer.disconnect()
    await ann.event_log.wait("leave", number=2)
    others = [_expected(bob, scenario.user("bob")), _expected(eve, scenario.user("eve"))]
    assert [_info(ann.peer, context.info) for context in ann.event_log.all("join")[1:]] == others
    assert [_info(ann.peer, context.info) for context in ann.event_log.all("leave")] == others


@check
async def history_pages(scenario: Scenario) -> None:
    room = await scenario.joined()
    await scenario.backend.publish(scenario.channel, *range(25))
    for reverse in (False, True):
        sizes, values = [], []
        since: centrifuge.StreamPosition | None = None
        while True:
            page = await room.subscription.history(limit=PAGE_SIZE, since=since, reverse=reverse)
            assert page.offset == 25
            sizes.append(len(page.publications))
            values += [room.peer.decode(publication.data) for publication in page.publications]
            if len(page.publications) < PAGE_SIZE:
                break
            since = centrifuge.StreamPosition(page.publications[-1].offset, page.epoch)
        assert sizes == [10, 10, 5]
        assert values == sorted(range(25), reverse=reverse)


@check
async def history_position(scenario: Scenario) -> None:
    room = await scenario.joined()
    epoch = room.event_log.all("subscribed")[0].stream_position.epoch
    empty = await room.subscription.history()
    assert (empty.publications, empty.offset, empty.epoch) == ([], 0, epoch)
    await scenario.backend.publish(scenario.channel, "a", "b")
    page = await room.subscription.history()
    assert (page.publications, page.offset, page.epoch) == ([], 2, epoch)


@check
async def history_all(scenario: Scenario) -> None:
    room = await scenario.joined()
    await scenario.backend.publish(scenario.channel, "a", "b", "c")
    page = await room.subscription.history(limit=-1)
    assert [room.peer.decode(publication.data) for publication in page.publications] == ["a", "b", "c"]
    assert [publication.offset for publication in page.publications] == [1, 2, 3]


@check
async def unsubscribe(scenario: Scenario) -> None:
    room = await scenario.joined()
    marker = await room.peer.subscribe(f"{scenario.channel}-2", token=scenario.token(channel=f"{scenario.channel}-2"))
    await room.subscription.unsubscribe()
    assert room.event_log.all("unsubscribed")[0].code == 0
    await scenario.backend.publish(scenario.channel, "too late")
    await scenario.backend.publish(marker.channel, "marker")
    await marker.wait_publications("marker")
    assert room.published() == []
    await _nobody_present(scenario)


@check
async def subscribe_again(scenario: Scenario) -> None:
    room = await scenario.joined()
    await room.subscription.unsubscribe()
    await scenario.backend.publish(scenario.channel, "meanwhile")
    await room.subscription.subscribe()
    context = await room.event_log.wait("subscribed", number=2)
    assert context.recovered
    await room.wait_publications("meanwhile")


@check
async def many_subscribes_in_a_frame(scenario: Scenario) -> None:
    peer = await scenario.connected()
    channels = [f"small:{scenario.name}-{number}" for number in range(50)]
    replies = await peer.frame(*({"subscribe": {"channel": channel}} for channel in channels))
    assert [list(reply) for reply in replies] == [["id", "subscribe"]] * 50, replies
    active = await scenario.backend.call("channels", pattern=f"small:{scenario.name}-*")
    assert active["channels"].keys() == set(channels)


@check
async def unsubscribe_in_the_same_frame(scenario: Scenario) -> None:
    peer = await scenario.connected()
    replies = await peer.frame(
        {"subscribe": {"channel": scenario.channel, "token": scenario.token()}},
        {"unsubscribe": {"channel": scenario.channel}},
    )
    assert ["subscribe" in replies[0], "unsubscribe" in replies[1]] == [True, True], replies
    await _nobody_present(scenario)
    room = await peer.subscribe(scenario.channel, token=scenario.token())
    await scenario.backend.publish(scenario.channel, "once")
    await room.wait_publications("once")


@check
async def concurrent_publications(scenario: Scenario) -> None:
    rooms = [await scenario.joined(name) for name in ("ann", "bob", "eve")]
    await asyncio.gather(*(room.publish([index, number]) for index, room in enumerate(rooms) for number in range(20)))
    for room in rooms:
        await room.event_log.wait("publication", number=60)
    assert [context.pub.offset for context in rooms[0].event_log.all("publication")] == list(range(1, 61))
    assert rooms[0].published() == rooms[1].published() == rooms[2].published()
