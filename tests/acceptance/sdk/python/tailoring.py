"""Checks of what a subscription may ask to get otherwise: patches instead of whole publications, or a part of them."""

from __future__ import annotations

import copy
from typing import Any

import centrifuge
from centrifuge import DeltaType, Filter

from tests.acceptance.sdk.python.peer import Room
from tests.acceptance.sdk.python.scene import Scene, check

STATES = 20


def _states() -> list[Any]:
    """What a channel may say again and again: rows of which few change, change places, come and go."""
    rows: list[dict[str, Any]] = [{"id": index, "name": f"район {index}", "price": index * 1.5} for index in range(40)]
    states = []
    for turn in range(STATES):
        rows[turn * 7 % len(rows)]["price"] = turn / 4
        rows[turn * 11 % len(rows)]["name"] = f"烽火 {turn}"
        if turn % 4 == 1:
            rows += [rows.pop(turn) for _ in range(5)]
        elif turn % 4 == 3:
            rows[turn] = {"id": 100 + turn, "note": 'new "here"\n'}
        states.append(copy.deepcopy(rows))
    return states


def _patches(room: Room) -> int:
    return sum(context.pub.delta for context in room.diary.all("publication"))


@check
async def delta(scene: Scene) -> None:
    peer, other = await scene.connected(), await scene.connected("bob")
    room = await peer.subscribe(scene.prices, delta=DeltaType.FOSSIL)
    whole = await other.subscribe(scene.prices)
    await scene.backend.publish(scene.prices, *_states())
    await room.wait_heard(*_states())
    await whole.wait_heard(*_states())
    # A patch that would cut a character in two comes whole to JSON clients; that may happen, but not often.
    assert STATES / 2 < _patches(room) < STATES
    assert _patches(whole) == 0


@check
async def delta_after_recovery(scene: Scene) -> None:
    states = _states()
    link = await scene.link()
    peer = await scene.connected(port=link.port)
    room = await peer.subscribe(scene.prices, delta=DeltaType.FOSSIL)
    await scene.backend.publish(scene.prices, *states[:5])
    await room.wait_heard(*states[:5])
    link.cut()
    await room.diary.wait("subscribing", code=1)
    await scene.backend.publish(scene.prices, *states[5:10])
    link.mend()
    context = await room.diary.wait("subscribed", number=2)
    assert context.recovered
    await scene.backend.publish(scene.prices, *states[10:15])
    await room.wait_heard(*states[:15])
    # A cut without anything missed: what comes first then is whole.
    link.cut()
    await room.diary.wait("subscribing", code=1, number=2)
    link.mend()
    await room.diary.wait("subscribed", number=3)
    await scene.backend.publish(scene.prices, *states[15:])
    await room.wait_heard(*states)
    deltas = [context.pub.delta for context in room.diary.all("publication")]
    assert not any(deltas[first] for first in (0, 5, 15))
    assert sum(deltas) > STATES / 2


@check
async def delta_not_allowed(scene: Scene) -> None:
    peer = await scene.connected()
    room = await peer.subscribe(scene.small, delta=DeltaType.FOSSIL)
    await scene.backend.publish(scene.small, "a", "b")
    await room.wait_heard("a", "b")
    assert _patches(room) == 0


@check
async def tags_filter(scene: Scene) -> None:
    link = await scene.link()
    peer = await scene.connected(port=link.port)
    wanted = Filter.all(Filter.is_in("kind", ["fire", "flood"]), Filter.gte("level", "2"))
    room = await peer.subscribe(scene.prices, tags_filter=wanted)

    async def publish(data: int, kind: str, level: str) -> None:
        await scene.backend.call("publish", channel=scene.prices, data=data, tags={"kind": kind, "level": level})

    await publish(1, "fire", "3")
    await publish(2, "fire", "1")
    await publish(3, "flood", "10")
    await room.wait_heard(1, 3)
    link.cut()
    await room.diary.wait("subscribing", code=1)
    await publish(4, "fire", "2")
    await publish(5, "storm", "9")
    link.mend()
    context = await room.diary.wait("subscribed", number=2)
    assert context.recovered
    await publish(6, "storm", "9")
    await publish(7, "flood", "2.5")
    await room.wait_heard(1, 3, 4, 7)


@check
async def tags_filter_refused(scene: Scene) -> None:
    peer = await scene.connected()
    wrong = {
        scene.small: Filter.exists("kind"),
        scene.prices: centrifuge.FilterNode({"key": "kind", "cmp": "like", "val": "x"}),
    }
    for channel, node in wrong.items():
        room = peer.room(channel, tags_filter=node)
        await room.subscription.subscribe()
        await room.diary.wait("unsubscribed", code=107)
