"""Checks of recovery: after an interruption nothing is lost or duplicated, or `recovered` is false."""

from __future__ import annotations

import centrifuge

from tests.acceptance.sdk.python.backend import connection_token
from tests.acceptance.sdk.python.peer import Room
from tests.acceptance.sdk.python.scenario import Scenario, Tokens, check


async def _expect_recovery(room: Room, *, recovered: bool) -> None:
    """The second `subscribed` event of the subscription, which says whether recovery succeeded."""
    context = await room.event_log.wait("subscribed", number=2)
    assert context.was_recovering
    assert context.recovered is recovered


@check
async def recovery_after_cut(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    room, other = await scenario.joined("ann", port=proxy.port), await scenario.joined("bob")
    await other.publish("before")
    await room.wait_publications("before")
    proxy.cut()
    await room.event_log.wait("subscribing", code=1)
    for number in range(40):
        await other.publish(number)
    await scenario.backend.publish(scenario.channel, "backend")
    proxy.restore()
    await _expect_recovery(room, recovered=True)
    await room.wait_publications("before", *range(40), "backend")
    await other.publish("after")
    await room.wait_publications("before", *range(40), "backend", "after")
    assert [context.pub.offset for context in room.event_log.all("publication")] == list(range(1, 44))


@check
async def recovery_of_nothing(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    room = await scenario.joined(port=proxy.port)
    await scenario.backend.publish(scenario.channel, 1)
    await room.wait_publications(1)
    proxy.cut()
    await room.event_log.wait("subscribing", code=1)
    proxy.restore()
    await _expect_recovery(room, recovered=True)
    await scenario.backend.publish(scenario.channel, 2)
    await room.wait_publications(1, 2)


@check
async def recovery_while_publishing(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    room = await scenario.joined(port=proxy.port)
    for number in range(60):
        if number % 20 == 10:
            proxy.cut()
        if number % 20 == 15:
            proxy.restore()
        await scenario.backend.publish(scenario.channel, number)
    await room.wait_publications(*range(60))
    assert all(context.recovered for context in room.event_log.all("subscribed")[1:])


@check
async def recovery_in_small_history(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    room = await scenario.joined(port=proxy.port, channel=scenario.small)
    proxy.cut()
    await room.event_log.wait("subscribing", code=1)
    await scenario.backend.publish(scenario.small, "a", "b")
    proxy.restore()
    await _expect_recovery(room, recovered=True)
    await room.wait_publications("a", "b")


@check
async def large_recovery(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    room = await scenario.joined(port=proxy.port)
    proxy.cut()
    await room.event_log.wait("subscribing", code=1)
    texts = [f"{number} {'x' * 40_000}" for number in range(30)]
    await scenario.backend.publish(scenario.channel, *texts)
    proxy.restore()
    await _expect_recovery(room, recovered=True)
    await scenario.backend.publish(scenario.channel, "after")
    await room.wait_publications(*texts, "after")
    assert [context.pub.offset for context in room.event_log.all("publication")] == list(range(1, 32))


@check
async def unrecoverable(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    room = await scenario.joined(port=proxy.port, channel=scenario.small)
    await scenario.backend.publish(scenario.small, "before")
    await room.wait_publications("before")
    proxy.cut()
    await room.event_log.wait("subscribing", code=1)
    await scenario.backend.publish(scenario.small, "a", "b", "c")
    proxy.restore()
    await _expect_recovery(room, recovered=False)
    assert room.event_log.all("subscribed")[1].stream_position.offset == 4
    await scenario.backend.publish(scenario.small, "after")
    await room.wait_publications("before", "after")


@check
async def history_removed(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    room = await scenario.joined(port=proxy.port)
    proxy.cut()
    await room.event_log.wait("subscribing", code=1)
    await scenario.backend.publish(scenario.channel, "lost")
    await scenario.backend.call("history_remove", channel=scenario.channel)
    proxy.restore()
    await _expect_recovery(room, recovered=False)


@check
async def state_invalidated(scenario: Scenario) -> None:
    tokens = Tokens(lambda: connection_token(scenario.user("ann")))
    peer = await scenario.connected(get_token=tokens)
    room = await peer.subscribe(scenario.channel, get_token=Tokens(scenario.token))
    await scenario.backend.publish(scenario.channel, "before")
    await room.wait_publications("before")
    await scenario.backend.call(
        "disconnect", user=scenario.user("ann"), disconnect={"code": 3014, "reason": "stale state"}
    )
    await _expect_recovery(room, recovered=False)
    assert tokens.asked == 2


@check
async def get_state(scenario: Scenario) -> None:
    peer = await scenario.connected()
    await scenario.backend.publish(scenario.channel, "a", "b")
    position = await scenario.backend.call("history", channel=scenario.channel)
    positions = [centrifuge.StreamPosition(1, "foreign"), centrifuge.StreamPosition(1, position["epoch"])]
    asked = []

    async def load(channel: str) -> centrifuge.StreamPosition:
        asked.append(channel)
        return positions[len(asked) - 1]

    room = await peer.subscribe(scenario.channel, token=scenario.token(), get_state=load)
    assert asked == [scenario.channel] * 2
    await room.wait_publications("b")


@check
async def half_open_connection(scenario: Scenario) -> None:
    proxy = await scenario.proxy(scenario.fast)
    room = await scenario.joined(port=proxy.port, max_server_ping_delay=0.3)
    await scenario.fast.publish(scenario.channel, "before")
    await room.wait_publications("before")
    proxy.mute(upstream=True, downstream=True)
    await scenario.fast.publish(scenario.channel, "unheard")
    await room.peer.wait_lost(2)
    await _expect_recovery(room, recovered=True)
    await room.wait_publications("before", "unheard")


@check
async def lost_pongs(scenario: Scenario) -> None:
    proxy = await scenario.proxy(scenario.fast)
    room = await scenario.joined(port=proxy.port)
    proxy.mute(upstream=True)
    await room.peer.wait_lost(3012)
    await _expect_recovery(room, recovered=True)


@check
async def personal_channel_recovery(scenario: Scenario) -> None:
    proxy = await scenario.proxy()
    peer = await scenario.connected("42", port=proxy.port)
    channel = f"#{scenario.user('42')}"
    await peer.event_log.wait("subscribed", channel=channel)
    await scenario.backend.publish(channel, "before")
    await peer.event_log.wait("publication", channel=channel)
    proxy.cut()
    await peer.event_log.wait("subscribing", channel=channel)
    await scenario.backend.publish(channel, *range(5))
    proxy.restore()
    context = await peer.event_log.wait("subscribed", number=2, channel=channel)
    assert context.was_recovering
    assert context.recovered
    await peer.event_log.wait("publication", number=6)
    heard = [peer.decode(context.pub.data) for context in peer.event_log.all("publication")]
    assert heard == ["before", *range(5)]
