"""Checks of deltas and tags filters."""

from __future__ import annotations

import copy
from typing import Any

import centrifuge
from centrifuge import DeltaType, Filter

from tests.acceptance.sdk.python.peer import Room
from tests.acceptance.sdk.python.scenario import Scenario, check

STATES = 20


def _states() -> list[Any]:
    """States that a channel may publish one after the other: a few rows change, move, appear and disappear."""
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
    return sum(context.pub.delta for context in room.event_log.all("publication"))


@check
async def delta(scenario: Scenario) -> None:
    peer, other = await scenario.connected(), await scenario.connected("bob")
    room = await peer.subscribe(scenario.prices, delta=DeltaType.FOSSIL)
    whole = await other.subscribe(scenario.prices)
    await scenario.backend.publish(scenario.prices, *_states())
    await room.wait_publications(*_states())
    await whole.wait_publications(*_states())
    # A patch that would cut a character in two comes whole to JSON clients; that may happen, but not often.
    assert STATES / 2 < _patches(room) < STATES
    assert _patches(whole) == 0


@check
async def delta_after_recovery(scenario: Scenario) -> None:
    states = _states()
    proxy = await scenario.proxy()
    peer = await scenario.connected(port=proxy.port)
    room = await peer.subscribe(scenario.prices, delta=DeltaType.FOSSIL)
    await scenario.backend.publish(scenario.prices, *states[:5])
    await room.wait_publications(*states[:5])
    proxy.cut()
    await room.event_log.wait("subscribing", code=1)
    await scenario.backend.publish(scenario.prices, *states[5:10])
    proxy.restore()
    context = await room.event_log.wait("subscribed", number=2)
    assert context.recovered
    await scenario.backend.publish(scenario.prices, *states[10:15])
    await room.wait_publications(*states[:15])
    # A cut without anything missed: what comes first then is whole.
    proxy.cut()
    await room.event_log.wait("subscribing", code=1, number=2)
    proxy.restore()
    await room.event_log.wait("subscribed", number=3)
    await scenario.backend.publish(scenario.prices, *states[15:])
    await room.wait_publications(*states)
    deltas = [context.pub.delta for context in room.event_log.all("publication")]
    assert not any(deltas[first] for first in (0, 5, 15))
    assert sum(deltas) > STATES / 2


@check
async def delta_not_allowed(scenario: Scenario) -> None:
    peer = await scenario.connected()
    room = await peer.subscribe(scenario.small, delta=DeltaType.FOSSIL)
    await scenario.backend.publish(scenario.small, "a", "b")
    await room.wait_publications("a", "b")
    assert _patches(room) == 0


@check
async def tags_filter(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    peer = await scenario.connected(port=proxy.port)
    wanted = Filter.all(Filter.is_in("kind", ["fire", "flood"]), Filter.gte("level", "2"))
    room = await peer.subscribe(scenario.prices, tags_filter=wanted)

    async def publish(data: int, kind: str, level: str) -> None:
        await scenario.backend.call("publish", channel=scenario.prices, data=data, tags={"kind": kind, "level": level})

    await publish(1, "fire", "3")
    await publish(2, "fire", "1")
    await publish(3, "flood", "10")
    await room.wait_publications(1, 3)
    proxy.cut()
    await room.event_log.wait("subscribing", code=1)
    await publish(4, "fire", "2")
    await publish(5, "storm", "9")
    proxy.restore()
    context = await room.event_log.wait("subscribed", number=2)
    assert context.recovered
    await publish(6, "storm", "9")
    await publish(7, "flood", "2.5")
    await room.wait_publications(1, 3, 4, 7)


@check
async def tags_filter_refused(scenario: Scenario) -> None:
    peer = await scenario.connected()
    wrong = {
        scenario.small: Filter.exists("kind"),
        scenario.prices: centrifuge.FilterNode({"key": "kind", "cmp": "like", "val": "x"}),
    }
    for channel, node in wrong.items():
        room = peer.room(channel, tags_filter=node)
        await room.subscription.subscribe()
        await room.event_log.wait("unsubscribed", code=107)
