"""Checks of what the server does unasked: personal channels, the server API's commands, ends of sessions."""

from __future__ import annotations

from tests.acceptance.sdk.python.backend import connection_token
from tests.acceptance.sdk.python.scene import Scene, check


@check
async def personal_channel(scene: Scene) -> None:
    peer = await scene.connected()
    channel = f"#{scene.user('ann')}"
    context = await peer.diary.wait("subscribed", channel=channel)
    assert context.recoverable
    await scene.backend.publish(channel, "for you", "and again")
    await peer.diary.wait("publication", number=2, channel=channel)
    assert [peer.decode(context.pub.data) for context in peer.diary.all("publication")] == ["for you", "and again"]


@check
async def channels_of_the_token(scene: Scene) -> None:
    token = connection_token(scene.user("ann"), subs={scene.channel: {"data": {"topic": "fires"}}})
    peer = await scene.connected(token=token)
    context = await peer.diary.wait("subscribed", channel=scene.channel)
    assert peer.decode(context.data) == {"topic": "fires"}
    join = await peer.diary.wait("join", channel=scene.channel)
    assert join.info.client == peer.id
    other = await scene.joined("bob")
    await other.publish("hello")
    publication = await peer.diary.wait("publication", channel=scene.channel)
    assert peer.decode(publication.pub.data) == "hello"
    await other.peer.disconnect()
    leave = await peer.diary.wait("leave", channel=scene.channel)
    assert leave.info.client == other.peer.id


@check
async def api_disconnect(scene: Scene) -> None:
    peer = await scene.connected()
    await scene.backend.call("disconnect", user=scene.user("ann"))
    context = await peer.wait_refused(3503)
    assert context.reason == "force disconnect"


@check
async def api_disconnect_with_own_code(scene: Scene) -> None:
    peer = await scene.connected()
    await scene.backend.call("disconnect", user=scene.user("ann"), disconnect={"code": 4501, "reason": "banned"})
    context = await peer.wait_refused(4501)
    assert context.reason == "banned"


@check
async def api_disconnect_without_reason(scene: Scene) -> None:
    peer = await scene.connected()
    await scene.backend.call("disconnect", user=scene.user("ann"), disconnect={"code": 4502})
    context = await peer.wait_refused(4502)
    assert context.reason


@check
async def api_reconnect(scene: Scene) -> None:
    room = await scene.joined()
    first = room.peer.id
    await scene.backend.call("disconnect", user=scene.user("ann"), disconnect={"code": 3011, "reason": "move"})
    await room.peer.wait_lost(3011)
    context = await room.diary.wait("subscribed", number=2)
    assert context.recovered
    assert room.peer.id != first
    await scene.backend.publish(scene.channel, "still here")
    await room.wait_heard("still here")


@check
async def api_unsubscribe(scene: Scene) -> None:
    room = await scene.joined()
    marker = await room.peer.subscribe(scene.small)
    await scene.backend.call("unsubscribe", user=scene.user("ann"), channel=scene.channel)
    await room.diary.wait("unsubscribed", code=2000)
    await scene.backend.publish(scene.channel, "too late")
    await scene.backend.publish(scene.small, "marker")
    await marker.wait_heard("marker")
    assert room.heard() == []


@check
async def api_subscribe(scene: Scene) -> None:
    peer = await scene.connected()
    await scene.backend.call("subscribe", user=scene.user("ann"), channel=scene.channel, data={"topic": "fires"})
    context = await peer.diary.wait("subscribed", channel=scene.channel)
    assert peer.decode(context.data) == {"topic": "fires"}
    await scene.backend.publish(scene.channel, "hello")
    publication = await peer.diary.wait("publication", channel=scene.channel)
    assert peer.decode(publication.pub.data) == "hello"
    await scene.backend.call("unsubscribe", user=scene.user("ann"), channel=scene.channel)
    await peer.diary.wait("unsubscribed", channel=scene.channel)


@check
async def api_refresh(scene: Scene) -> None:
    peer = await scene.connected()
    await scene.backend.call("refresh", user=scene.user("ann"), expired=True)
    await peer.wait_lost(3005)
