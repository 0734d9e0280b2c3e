"""Checks of what is refused, and that it harms nobody else."""

from __future__ import annotations

import centrifuge

from tests.acceptance.sdk.python.peer import refusal
from tests.acceptance.sdk.python.scene import Scene, check


@check
async def rpc_without_handler(scene: Scene) -> None:
    peer = await scene.connected()
    assert await refusal(peer.client.rpc("sum", peer.encode([1, 2]))) == 108


@check
async def send_without_handler(scene: Scene) -> None:
    peer = await scene.connected()
    await peer.client._send_commands([{"send": {}}])
    await peer.wait_refused(3508)


@check
async def publish_from_outside(scene: Scene) -> None:
    peer = await scene.connected()
    assert await refusal(peer.client.publish(scene.channel, peer.encode("hello"))) == 103
    assert await refusal(peer.client.publish("nowhere:room", peer.encode("hello"))) == 102


@check
async def questions_from_outside(scene: Scene) -> None:
    peer = await scene.connected()
    assert await refusal(peer.client.history(scene.channel)) == 103
    assert await refusal(peer.client.presence(scene.channel)) == 103
    assert await refusal(peer.client.presence_stats(scene.channel)) == 103


@check
async def presence_that_is_off(scene: Scene) -> None:
    room = await scene.joined(channel=scene.small)
    assert await refusal(room.subscription.presence()) == 108
    assert await refusal(room.subscription.presence_stats()) == 108


@check
async def history_of_a_foreign_epoch(scene: Scene) -> None:
    room = await scene.joined()
    foreign = centrifuge.StreamPosition(0, "foreign")
    assert await refusal(room.subscription.history(limit=10, since=foreign)) == 112


@check
async def unknown_namespace(scene: Scene) -> None:
    peer = await scene.connected()
    room = peer.room("nowhere:room")
    await room.subscription.subscribe()
    await room.diary.wait("unsubscribed", code=102)


@check
async def subscribed_twice(scene: Scene) -> None:
    room = await scene.joined()
    [reply] = await room.peer.frame({"subscribe": {"channel": scene.channel, "token": scene.token()}})
    assert reply["error"]["code"] == 105


@check
async def oversized_message(scene: Scene) -> None:
    room, other = await scene.joined("ann"), await scene.joined("bob")
    await room.publish("x" * 60_000)
    for listener in (room, other):
        await listener.diary.wait("publication")
    await room.diary.wait("join", number=2)
    # Not by `publish`, whose future nobody would await. The SDK makes its own code 3 of the close code 1009.
    peer = room.peer.client
    commands = [
        {"id": 99, "publish": {"channel": scene.channel, "data": peer._encode_data(room.peer.encode("x" * 70_000))}}
    ]
    await peer._send_commands(commands)
    await room.peer.wait_lost(3)
    await other.publish("unharmed")
    await other.wait_heard("x" * 60_000, "unharmed")


@check
async def binary_payload(scene: Scene) -> None:
    token = scene.token("reader")
    reader = await (await scene.connected("reader", protobuf=False)).subscribe(scene.channel, token=token)
    elsewhere = await scene.joined("watcher", channel=scene.small, protobuf=False)
    sender = await scene.joined("sender", protobuf=True)
    binary = await scene.joined("binary", protobuf=True)
    payload = b"\x00\xff not JSON"
    await reader.diary.wait("join", number=3)
    await sender.subscription.publish(payload)
    await reader.peer.wait_refused(3506)
    for room in (sender, binary):
        await room.diary.wait("publication")
        assert room.diary.all("publication")[0].pub.data == payload
    await sender.publish("still here")
    await binary.diary.wait("publication", number=2)
    await scene.backend.publish(scene.small, "unharmed")
    await elsewhere.wait_heard("unharmed")
