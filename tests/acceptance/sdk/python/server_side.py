"""Checks of actions of the server: personal channels, commands of the server API, session expiry."""

from __future__ import annotations

from tests.acceptance.sdk.python.backend import connection_token
from tests.acceptance.sdk.python.scenario import Scenario, check


@check
async def personal_channel(scenario: Scenario) -> None:
    peer = await scenario.connected()
    channel = f"#{scenario.user('ann')}"
    context = await peer.event_log.wait("subscribed", channel=channel)
    assert context.recoverable
    await scenario.backend.publish(channel, "for you", "and again")
    await peer.event_log.wait("publication", number=2, channel=channel)
    assert [peer.decode(context.pub.data) for context in peer.event_log.all("publication")] == ["for you", "and again"]


@check
async def channels_of_the_token(scenario: Scenario) -> None:
    token = connection_token(scenario.user("ann"), subs={scenario.channel: {"data": {"topic": "fires"}}})
    peer = await scenario.connected(token=token)
    context = await peer.event_log.wait("subscribed", channel=scenario.channel)
    assert peer.decode(context.data) == {"topic": "fires"}
    join = await peer.event_log.wait("join", channel=scenario.channel)
    assert join.info.client == peer.id
    other = await scenario.joined("bob")
    await other.publish("hello")
    publication = await peer.event_log.wait("publication", channel=scenario.channel)
    assert peer.decode(publication.pub.data) == "hello"
    await other.peer.disconnect()
    leave = await peer.event_log.wait("leave", channel=scenario.channel)
    assert leave.info.client == other.peer.id


@check
async def api_disconnect(scenario: Scenario) -> None:
    peer = await scenario.connected()
    await scenario.backend.call("disconnect", user=scenario.user("ann"))
    context = await peer.wait_refused(3503)
    assert context.reason == "force disconnect"


@check
async def api_disconnect_with_own_code(scenario: Scenario) -> None:
    peer = await scenario.connected()
    await scenario.backend.call("disconnect", user=scenario.user("ann"), disconnect={"code": 4501, "reason": "banned"})
    context = await peer.wait_refused(4501)
    assert context.reason == "banned"


@check
async def api_disconnect_without_reason(scenario: Scenario) -> None:
    peer = await scenario.connected()
    await scenario.backend.call("disconnect", user=scenario.user("ann"), disconnect={"code": 4502})
    context = await peer.wait_refused(4502)
    assert context.reason


@check
async def api_reconnect(scenario: Scenario) -> None:
    room = await scenario.joined()
    first = room.peer.id
    await scenario.backend.call("disconnect", user=scenario.user("ann"), disconnect={"code": 3011, "reason": "move"})
    await room.peer.wait_lost(3011)
    context = await room.event_log.wait("subscribed", number=2)
    assert context.recovered
    assert room.peer.id != first
    await scenario.backend.publish(scenario.channel, "still here")
    await room.wait_publications("still here")


@check
async def api_unsubscribe(scenario: Scenario) -> None:
    room = await scenario.joined()
    marker = await room.peer.subscribe(scenario.small)
    await scenario.backend.call("unsubscribe", user=scenario.user("ann"), channel=scenario.channel)
    await room.event_log.wait("unsubscribed", code=2000)
    await scenario.backend.publish(scenario.channel, "too late")
    await scenario.backend.publish(scenario.small, "marker")
    await marker.wait_publications("marker")
    assert room.published() == []


@check
async def api_subscribe(scenario: Scenario) -> None:
    peer = await scenario.connected()
    await scenario.backend.call(
        "subscribe", user=scenario.user("ann"), channel=scenario.channel, data={"topic": "fires"}
    )
    context = await peer.event_log.wait("subscribed", channel=scenario.channel)
    assert peer.decode(context.data) == {"topic": "fires"}
    await scenario.backend.publish(scenario.channel, "hello")
    publication = await peer.event_log.wait("publication", channel=scenario.channel)
    assert peer.decode(publication.pub.data) == "hello"
    await scenario.backend.call("unsubscribe", user=scenario.user("ann"), channel=scenario.channel)
    await peer.event_log.wait("unsubscribed", channel=scenario.channel)


@check
async def api_refresh(scenario: Scenario) -> None:
    peer = await scenario.connected()
    await scenario.backend.call("refresh", user=scenario.user("ann"), expired=True)
    await peer.wait_lost(3005)
