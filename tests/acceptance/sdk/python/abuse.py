"""Checks of refused commands, and that they do not affect other clients."""

from __future__ import annotations

import centrifuge

from tests.acceptance.sdk.python.peer import refusal
from tests.acceptance.sdk.python.scenario import Scenario, check


@check
async def rpc_without_handler(scenario: Scenario) -> None:
    peer = await scenario.connected()
    assert await refusal(peer.client.rpc("sum", peer.encode([1, 2]))) == 108


@check
async def send_without_handler(scenario: Scenario) -> None:
    peer = await scenario.connected()
    await peer.client._send_commands([{"send": {}}])
    await peer.wait_refused(3508)


@check
async def publish_without_subscription(scenario: Scenario) -> None:
    peer = await scenario.connected()
    assert await refusal(peer.client.publish(scenario.channel, peer.encode("hello"))) == 103
    assert await refusal(peer.client.publish("nowhere:room", peer.encode("hello"))) == 102


@check
async def reads_without_subscription(scenario: Scenario) -> None:
    peer = await scenario.connected()
    assert await refusal(peer.client.history(scenario.channel)) == 103
    assert await refusal(peer.client.presence(scenario.channel)) == 103
    assert await refusal(peer.client.presence_stats(scenario.channel)) == 103


@check
async def presence_disabled(scenario: Scenario) -> None:
    room = await scenario.joined(channel=scenario.small)
    assert await refusal(room.subscription.presence()) == 108
    assert await refusal(room.subscription.presence_stats()) == 108


@check
async def history_of_another_epoch(scenario: Scenario) -> None:
    room = await scenario.joined()
    foreign = centrifuge.StreamPosition(0, "foreign")
    assert await refusal(room.subscription.history(limit=10, since=foreign)) == 112


@check
async def unknown_namespace(scenario: Scenario) -> None:
    peer = await scenario.connected()
    room = peer.room("nowhere:room")
    await room.subscription.subscribe()
    await room.event_log.wait("unsubscribed", code=102)


@check
async def subscribed_twice(scenario: Scenario) -> None:
    room = await scenario.joined()
    [reply] = await room.peer.frame({"subscribe": {"channel": scenario.channel, "token": scenario.token()}})
    assert reply["error"]["code"] == 105


@check
async def oversized_message(scenario: Scenario) -> None:
    room, other = await scenario.joined("ann"), await scenario.joined("bob")
    await room.publish("x" * 60_000)
    for listener in (room, other):
        await listener.event_log.wait("publication")
    await room.event_log.wait("join", number=2)
    # Not by `publish`, whose future nobody would await. The SDK makes its own code 3 of the close code 1009.
    peer = room.peer.client
    commands = [
        {"id": 99, "publish": {"channel": scenario.channel, "data": peer._encode_data(room.peer.encode("x" * 70_000))}}
    ]
    await peer._send_commands(commands)
    await room.peer.wait_lost(3)
    await other.publish("unharmed")
    await other.wait_publications("x" * 60_000, "unharmed")


@check
async def binary_payload(scenario: Scenario) -> None:
    token = scenario.token("reader")
    reader = await (await scenario.connected("reader", protobuf=False)).subscribe(scenario.channel, token=token)
    elsewhere = await scenario.joined("watcher", channel=scenario.small, protobuf=False)
    sender = await scenario.joined("sender", protobuf=True)
    binary = await scenario.joined("binary", protobuf=True)
    payload = b"\x00\xff not JSON"
    await reader.event_log.wait("join", number=3)
    await sender.subscription.publish(payload)
    await reader.peer.wait_refused(3506)
    for room in (sender, binary):
        await room.event_log.wait("publication")
        assert room.event_log.all("publication")[0].pub.data == payload
    await sender.publish("still here")
    await binary.event_log.wait("publication", number=2)
    await scenario.backend.publish(scenario.small, "unharmed")
    await elsewhere.wait_publications("unharmed")
