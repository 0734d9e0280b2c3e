"""Checks of cuts: nothing is missed, nothing comes twice, and where that is impossible the server says so."""

from __future__ import annotations

import centrifuge

from tests.acceptance.sdk.python.backend import connection_token
from tests.acceptance.sdk.python.peer import Room
from tests.acceptance.sdk.python.scene import Scene, Tokens, check


async def _back(room: Room, *, recovered: bool) -> None:
    """The room's second `subscribed`, with the server's word on what was missed."""
    context = await room.diary.wait("subscribed", number=2)
    assert context.was_recovering
    assert context.recovered is recovered


@check
async def recovery_after_cut(scene: Scene) -> None:
    link = await scene.link()
    room, other = await scene.joined("ann", port=link.port), await scene.joined("bob")
    await other.publish("before")
    await room.wait_heard("before")
    link.cut()
    await room.diary.wait("subscribing", code=1)
    for number in range(40):
        await other.publish(number)
    await scene.backend.publish(scene.channel, "backend")
    link.mend()
    await _back(room, recovered=True)
    await room.wait_heard("before", *range(40), "backend")
    await other.publish("after")
    await room.wait_heard("before", *range(40), "backend", "after")
    assert [context.pub.offset for context in room.diary.all("publication")] == list(range(1, 44))


@check
async def recovery_of_nothing(scene: Scene) -> None:
    link = await scene.link()
    room = await scene.joined(port=link.port)
    await scene.backend.publish(scene.channel, 1)
    await room.wait_heard(1)
    link.cut()
    await room.diary.wait("subscribing", code=1)
    link.mend()
    await _back(room, recovered=True)
    await scene.backend.publish(scene.channel, 2)
    await room.wait_heard(1, 2)


@check
async def recovery_while_publishing(scene: Scene) -> None:
    link = await scene.link()
    room = await scene.joined(port=link.port)
    for number in range(60):
        if number % 20 == 10:
            link.cut()
        if number % 20 == 15:
            link.mend()
        await scene.backend.publish(scene.channel, number)
    await room.wait_heard(*range(60))
    assert all(context.recovered for context in room.diary.all("subscribed")[1:])


@check
async def recovery_in_small_history(scene: Scene) -> None:
    link = await scene.link()
    room = await scene.joined(port=link.port, channel=scene.small)
    link.cut()
    await room.diary.wait("subscribing", code=1)
    await scene.backend.publish(scene.small, "a", "b")
    link.mend()
    await _back(room, recovered=True)
    await room.wait_heard("a", "b")


@check
async def large_recovery(scene: Scene) -> None:
    link = await scene.link()
    room = await scene.joined(port=link.port)
    link.cut()
    await room.diary.wait("subscribing", code=1)
    texts = [f"{number} {'x' * 40_000}" for number in range(30)]
    await scene.backend.publish(scene.channel, *texts)
    link.mend()
    await _back(room, recovered=True)
    await scene.backend.publish(scene.channel, "after")
    await room.wait_heard(*texts, "after")
    assert [context.pub.offset for context in room.diary.all("publication")] == list(range(1, 32))


@check
async def unrecoverable(scene: Scene) -> None:
    link = await scene.link()
    room = await scene.joined(port=link.port, channel=scene.small)
    await scene.backend.publish(scene.small, "before")
    await room.wait_heard("before")
    link.cut()
    await room.diary.wait("subscribing", code=1)
    await scene.backend.publish(scene.small, "a", "b", "c")
    link.mend()
    await _back(room, recovered=False)
    assert room.diary.all("subscribed")[1].stream_position.offset == 4
    await scene.backend.publish(scene.small, "after")
    await room.wait_heard("before", "after")


@check
async def history_removed(scene: Scene) -> None:
    link = await scene.link()
    room = await scene.joined(port=link.port)
    link.cut()
    await room.diary.wait("subscribing", code=1)
    await scene.backend.publish(scene.channel, "lost")
    await scene.backend.call("history_remove", channel=scene.channel)
    link.mend()
    await _back(room, recovered=False)


@check
async def state_invalidated(scene: Scene) -> None:
    tokens = Tokens(lambda: connection_token(scene.user("ann")))
    peer = await scene.connected(get_token=tokens)
    room = await peer.subscribe(scene.channel, get_token=Tokens(scene.token))
    await scene.backend.publish(scene.channel, "before")
    await room.wait_heard("before")
    await scene.backend.call("disconnect", user=scene.user("ann"), disconnect={"code": 3014, "reason": "stale state"})
    await _back(room, recovered=False)
    assert tokens.asked == 2


@check
async def get_state(scene: Scene) -> None:
    peer = await scene.connected()
    await scene.backend.publish(scene.channel, "a", "b")
    position = await scene.backend.call("history", channel=scene.channel)
    positions = [centrifuge.StreamPosition(1, "foreign"), centrifuge.StreamPosition(1, position["epoch"])]
    asked = []

    async def load(channel: str) -> centrifuge.StreamPosition:
        asked.append(channel)
        return positions[len(asked) - 1]

    room = await peer.subscribe(scene.channel, token=scene.token(), get_state=load)
    assert asked == [scene.channel] * 2
    await room.wait_heard("b")


@check
async def half_open_link(scene: Scene) -> None:
    link = await scene.link(scene.hasty)
    room = await scene.joined(port=link.port, max_server_ping_delay=0.3)
    await scene.hasty.publish(scene.channel, "before")
    await room.wait_heard("before")
    link.mute(upstream=True, downstream=True)
    await scene.hasty.publish(scene.channel, "unheard")
    await room.peer.wait_lost(2)
    await _back(room, recovered=True)
    await room.wait_heard("before", "unheard")


@check
async def lost_pongs(scene: Scene) -> None:
    link = await scene.link(scene.hasty)
    room = await scene.joined(port=link.port)
    link.mute(upstream=True)
    await room.peer.wait_lost(3012)
    await _back(room, recovered=True)


@check
async def personal_channel_recovery(scene: Scene) -> None:
    link = await scene.link()
    peer = await scene.connected("42", port=link.port)
    channel = f"#{scene.user('42')}"
    await peer.diary.wait("subscribed", channel=channel)
    await scene.backend.publish(channel, "before")
    await peer.diary.wait("publication", channel=channel)
    link.cut()
    await peer.diary.wait("subscribing", channel=channel)
    await scene.backend.publish(channel, *range(5))
    link.mend()
    context = await peer.diary.wait("subscribed", number=2, channel=channel)
    assert context.was_recovering
    assert context.recovered
    await peer.diary.wait("publication", number=6)
    heard = [peer.decode(context.pub.data) for context in peer.diary.all("publication")]
    assert heard == ["before", *range(5)]
