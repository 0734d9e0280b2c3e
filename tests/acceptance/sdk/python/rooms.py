"""Checks of everyday life in a channel."""

from __future__ import annotations

import asyncio
from typing import Any

import centrifuge

from tests.acceptance.sdk.python.peer import Peer, Room
from tests.acceptance.sdk.python.scene import Scene, check

PAGE_SIZE = 10


def _info(peer: Peer, info: Any) -> tuple[str, str, Any, Any]:
    return info.user, info.client, peer.decode(info.conn_info), peer.decode(info.chan_info)


def _expected(room: Room, user: str) -> tuple[str, str, Any, Any]:
    return user, room.peer.id, {"name": user}, {"role": "guest"}


@check
async def connect(scene: Scene) -> None:
    peer = await scene.connected()
    context = peer.diary.all("connected")[0]
    assert context.client
    assert isinstance(context.version, str)
    assert context.version


@check
async def subscribe(scene: Scene) -> None:
    peer = await scene.connected()
    room = await peer.subscribe(scene.channel, token=scene.token(data={"topic": "fires"}))
    context = room.diary.all("subscribed")[0]
    assert context.recoverable
    assert context.positioned
    assert context.stream_position.epoch
    assert context.stream_position.offset == 0
    assert not context.was_recovering
    assert not context.recovered
    assert peer.decode(context.data) == {"topic": "fires"}


@check
async def publish_echo(scene: Scene) -> None:
    room = await scene.joined()
    await room.publish({"text": "fire! 烽火", "number": 1.50})
    await room.publish([1, None])
    await room.wait_heard({"text": "fire! 烽火", "number": 1.50}, [1, None])
    publications = [context.pub for context in room.diary.all("publication")]
    assert [publication.offset for publication in publications] == [1, 2]
    assert [_info(room.peer, publication.info) for publication in publications] == [
        _expected(room, scene.user("ann"))
    ] * 2


@check
async def second_client(scene: Scene) -> None:
    ann, bob = await scene.joined("ann"), await scene.joined("bob")
    for number in range(20):
        await ann.publish(number)
    await bob.wait_heard(*range(20))
    assert _info(bob.peer, bob.diary.all("publication")[0].pub.info) == _expected(ann, scene.user("ann"))


@check
async def across_codecs(scene: Scene) -> None:
    text, binary = await scene.joined("ann", protobuf=False), await scene.joined("bob", protobuf=True)
    await text.publish({"by": ["烽", 1.5]})
    await binary.publish({"by": "bob"})
    for room in (text, binary):
        await room.wait_heard({"by": ["烽", 1.5]}, {"by": "bob"})
        first, second = (context.pub.info for context in room.diary.all("publication"))
        assert _info(room.peer, first) == _expected(text, scene.user("ann"))
        assert _info(room.peer, second) == _expected(binary, scene.user("bob"))


@check
async def backend_publication(scene: Scene) -> None:
    room = await scene.joined()
    await scene.backend.call("publish", channel=scene.channel, data={"from": "backend"}, tags={"kind": "news"})
    await room.wait_heard({"from": "backend"})
    publication = room.diary.all("publication")[0].pub
    assert publication.info is None
    assert publication.tags == {"kind": "news"}
    assert publication.offset == 1


@check
async def presence(scene: Scene) -> None:
    ann, bob = await scene.joined("ann"), await scene.joined("bob")
    answer = await ann.subscription.presence()
    assert {client: _info(ann.peer, info) for client, info in answer.clients.items()} == {
        ann.peer.id: _expected(ann, scene.user("ann")),
        bob.peer.id: _expected(bob, scene.user("bob")),
    }


@check
async def presence_stats(scene: Scene) -> None:
    ann = await scene.joined("ann")
    await scene.joined("ann")
    await scene.joined("bob")
    stats = await ann.subscription.presence_stats()
    assert (stats.num_clients, stats.num_users) == (3, 2)


@check
async def join_leave(scene: Scene) -> None:
    ann = await scene.joined("ann")
    own = await ann.diary.wait("join")
    assert _info(ann.peer, own.info) == _expected(ann, scene.user("ann"))
    bob, eve = await scene.joined("bob"), await scene.joined("eve")
    await ann.diary.wait("join", number=3)
    await bob.subscription.unsubscribe()
    await ann.diary.wait("leave")
    await eve.peer.disconnect()
    await ann.diary.wait("leave", number=2)
    others = [_expected(bob, scene.user("bob")), _expected(eve, scene.user("eve"))]
    assert [_info(ann.peer, context.info) for context in ann.diary.all("join")[1:]] == others
    assert [_info(ann.peer, context.info) for context in ann.diary.all("leave")] == others


@check
async def history_pages(scene: Scene) -> None:
    room = await scene.joined()
    await scene.backend.publish(scene.channel, *range(25))
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
async def history_position(scene: Scene) -> None:
    room = await scene.joined()
    epoch = room.diary.all("subscribed")[0].stream_position.epoch
    empty = await room.subscription.history()
    assert (empty.publications, empty.offset, empty.epoch) == ([], 0, epoch)
    await scene.backend.publish(scene.channel, "a", "b")
    page = await room.subscription.history()
    assert (page.publications, page.offset, page.epoch) == ([], 2, epoch)


@check
async def history_all(scene: Scene) -> None:
    room = await scene.joined()
    await scene.backend.publish(scene.channel, "a", "b", "c")
    page = await room.subscription.history(limit=-1)
    assert [room.peer.decode(publication.data) for publication in page.publications] == ["a", "b", "c"]
    assert [publication.offset for publication in page.publications] == [1, 2, 3]


@check
async def unsubscribe(scene: Scene) -> None:
    room = await scene.joined()
    marker = await room.peer.subscribe(f"{scene.channel}-2", token=scene.token(channel=f"{scene.channel}-2"))
    await room.subscription.unsubscribe()
    assert room.diary.all("unsubscribed")[0].code == 0
    await scene.backend.publish(scene.channel, "too late")
    await scene.backend.publish(marker.channel, "marker")
    await marker.wait_heard("marker")
    assert room.heard() == []
    assert (await scene.backend.call("presence", channel=scene.channel))["presence"] == {}


@check
async def subscribe_again(scene: Scene) -> None:
    room = await scene.joined()
    await room.subscription.unsubscribe()
    await scene.backend.publish(scene.channel, "meanwhile")
    await room.subscription.subscribe()
    context = await room.diary.wait("subscribed", number=2)
    assert context.recovered
    await room.wait_heard("meanwhile")


@check
async def many_subscribes_in_a_frame(scene: Scene) -> None:
    peer = await scene.connected()
    channels = [f"small:{scene.name}-{number}" for number in range(50)]
    replies = await peer.frame(*({"subscribe": {"channel": channel}} for channel in channels))
    assert [list(reply) for reply in replies] == [["id", "subscribe"]] * 50, replies
    active = await scene.backend.call("channels", pattern=f"small:{scene.name}-*")
    assert active["channels"].keys() == set(channels)


@check
async def unsubscribe_in_the_same_frame(scene: Scene) -> None:
    peer = await scene.connected()
    replies = await peer.frame(
        {"subscribe": {"channel": scene.channel, "token": scene.token()}},
        {"unsubscribe": {"channel": scene.channel}},
    )
    assert ["subscribe" in replies[0], "unsubscribe" in replies[1]] == [True, True], replies
    assert (await scene.backend.call("presence", channel=scene.channel))["presence"] == {}
    room = await peer.subscribe(scene.channel, token=scene.token())
    await scene.backend.publish(scene.channel, "once")
    await room.wait_heard("once")


@check
async def all_at_once(scene: Scene) -> None:
    rooms = [await scene.joined(name) for name in ("ann", "bob", "eve")]
    await asyncio.gather(*(room.publish([index, number]) for index, room in enumerate(rooms) for number in range(20)))
    for room in rooms:
        await room.diary.wait("publication", number=60)
    assert [context.pub.offset for context in rooms[0].diary.all("publication")] == list(range(1, 61))
    assert rooms[0].heard() == rooms[1].heard() == rooms[2].heard()
