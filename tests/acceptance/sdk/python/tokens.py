"""Checks of tokens: the wrong ones are refused with the right codes, the right ones are renewed in time."""

from __future__ import annotations

import base64
from typing import Any

import jwt

from tests.acceptance.sdk.python.backend import connection_token, subscription_token
from tests.acceptance.sdk.python.scene import Scene, Tokens, check

TTL_S = 2.0
"""Long enough for a token to be still good when the server of a busy machine sees it."""


def _server_code(context: Any) -> int:
    """The server's error code in an error event, 0 if the error is another one."""
    return int(getattr(context.error, "code", 0))


@check
async def expired_token(scene: Scene) -> None:
    user = scene.user("ann")
    tokens = Tokens(lambda: connection_token(user, ttl_s=-60), lambda: connection_token(user, ttl_s=600))
    peer = await scene.connected(get_token=tokens)
    assert tokens.asked == 2
    assert [_server_code(context) for context in peer.diary.all("error")] == [109]


@check
async def expired_token_with_a_subscription(scene: Scene) -> None:
    user = scene.user("ann")
    tokens = Tokens(lambda: connection_token(user, ttl_s=-60), lambda: connection_token(user))
    peer = scene.peer(get_token=tokens)
    room = peer.room(scene.channel, token=scene.token())
    await room.subscription.subscribe()
    await peer.connect()
    await room.diary.wait("subscribed")
    assert all(context.code < 3500 for context in peer.diary.all("disconnected"))


@check
async def forged_token(scene: Scene) -> None:
    peer = scene.peer(token=jwt.encode({"sub": "ann"}, "another secret", algorithm="HS256"))
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def unsigned_token(scene: Scene) -> None:
    peer = scene.peer(token=jwt.encode({"sub": "ann"}, "", algorithm="none"))
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def token_of_another_algorithm(scene: Scene) -> None:
    _, payload, signature = connection_token("ann").split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"RS256","typ":"JWT"}').decode().rstrip("=")
    peer = scene.peer(token=f"{header}.{payload}.{signature}")
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def garbage_token(scene: Scene) -> None:
    peer = scene.peer(token="no.jwt")
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def subscription_token_to_connect(scene: Scene) -> None:
    peer = scene.peer(token=scene.token())
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def missing_token(scene: Scene) -> None:
    peer = scene.peer(token="")
    await peer.client.connect()
    await peer.wait_refused(3501)


async def _subscribe_refused(scene: Scene, code: int, **options: Any) -> None:
    """The subscription is refused with an error, and the connection lives on."""
    peer = await scene.connected()
    room = peer.room(scene.channel, **options)
    await room.subscription.subscribe()
    await room.diary.wait("unsubscribed", code=code)
    await peer.subscribe(scene.small)


async def _subscribe_disconnected(scene: Scene, code: int, token: str) -> None:
    """The attempt ends the connection for good."""
    peer = await scene.connected()
    await peer.room(scene.channel, token=token).subscription.subscribe()
    await peer.wait_refused(code)


@check
async def missing_subscription_token(scene: Scene) -> None:
    await _subscribe_refused(scene, 103)


@check
async def forged_subscription_token(scene: Scene) -> None:
    claims = {"sub": scene.user("ann"), "channel": scene.channel}
    await _subscribe_refused(scene, 103, token=jwt.encode(claims, "another secret", algorithm="HS256"))


@check
async def connection_token_to_subscribe(scene: Scene) -> None:
    await _subscribe_refused(scene, 103, token=connection_token(scene.user("ann")))


@check
async def subscription_token_of_another_channel(scene: Scene) -> None:
    await _subscribe_disconnected(scene, 3500, scene.token(channel="elsewhere"))


@check
async def subscription_token_of_another_user(scene: Scene) -> None:
    await _subscribe_disconnected(scene, 3500, scene.token("eve"))


@check
async def expired_subscription_token(scene: Scene) -> None:
    peer = await scene.connected()
    tokens = Tokens(lambda: scene.token(ttl_s=-60), lambda: scene.token(ttl_s=600))
    room = await peer.subscribe(scene.channel, get_token=tokens)
    assert tokens.asked == 2
    assert [_server_code(context) for context in room.diary.all("error")] == [109]


@check
async def private_channel(scene: Scene) -> None:
    peer = await scene.connected()
    private = f"$small:{scene.name}"
    room = peer.room(private)
    await room.subscription.subscribe()
    await room.diary.wait("unsubscribed", code=103)
    peer.client.remove_subscription(room.subscription)
    await peer.subscribe(private, token=scene.token(channel=private))


@check
async def refresh(scene: Scene) -> None:
    user = scene.user("ann")
    tokens = Tokens(lambda: connection_token(user, ttl_s=TTL_S))
    peer = await scene.connected(get_token=tokens, port=scene.hasty.port)
    room = await peer.subscribe(scene.channel, token=scene.token())
    await tokens.wait_asked(4)
    await scene.hasty.publish(scene.channel, "still here")
    await room.wait_heard("still here")
    assert {kind for kind, _ in peer.diary.entries} == {"connecting", "connected", "subscribed", "join"}
    assert len(peer.diary.all("connected")) == 1


@check
async def refresh_with_expired_token(scene: Scene) -> None:
    user = scene.user("ann")
    tokens = Tokens(
        lambda: connection_token(user, ttl_s=TTL_S),
        lambda: connection_token(user, ttl_s=-60),
        lambda: connection_token(user),
    )
    peer = await scene.connected(get_token=tokens)
    await peer.wait_lost(3005)
    await peer.diary.wait("connected", number=2)


@check
async def refresh_for_another_user(scene: Scene) -> None:
    tokens = Tokens(lambda: connection_token(scene.user("ann"), ttl_s=TTL_S), lambda: connection_token("eve"))
    peer = await scene.connected(get_token=tokens)
    await peer.wait_refused(3500)


@check
async def connection_expiry(scene: Scene) -> None:
    tokens = Tokens(
        lambda: connection_token(scene.user("ann"), ttl_s=TTL_S),
        RuntimeError("the backend is down"),
        lambda: connection_token(scene.user("ann")),
    )
    peer = await scene.connected(get_token=tokens, port=scene.hasty.port)
    await peer.wait_lost(3005)
    await peer.diary.wait("connected", number=2)


@check
async def sub_refresh(scene: Scene) -> None:
    peer = await scene.connected(port=scene.hasty.port)
    tokens = Tokens(lambda: scene.token(ttl_s=TTL_S))
    room = await peer.subscribe(scene.channel, get_token=tokens)
    await tokens.wait_asked(4)
    await scene.hasty.publish(scene.channel, "still here")
    await room.wait_heard("still here")
    assert {kind for kind, _ in room.diary.entries} == {"subscribing", "subscribed", "publication", "join"}
    assert len(room.diary.all("subscribed")) == 1


@check
async def sub_refresh_with_expired_token(scene: Scene) -> None:
    peer = await scene.connected()
    tokens = Tokens(lambda: scene.token(ttl_s=TTL_S), lambda: scene.token(ttl_s=-60), lambda: scene.token(ttl_s=600))
    room = await peer.subscribe(scene.channel, get_token=tokens)
    await peer.wait_lost(3006)
    await room.diary.wait("subscribed", number=2)


@check
async def sub_refresh_for_another_user(scene: Scene) -> None:
    peer = await scene.connected()
    tokens = Tokens(lambda: scene.token(ttl_s=TTL_S), lambda: subscription_token("eve", scene.channel))
    await peer.subscribe(scene.channel, get_token=tokens)
    await peer.wait_refused(3500)


@check
async def subscription_expiry(scene: Scene) -> None:
    peer = await scene.connected(port=scene.hasty.port)
    tokens = Tokens(lambda: scene.token(ttl_s=TTL_S), RuntimeError("the backend is down"), scene.token)
    room = await peer.subscribe(scene.channel, get_token=tokens)
    await room.diary.wait("subscribing", code=2501)
    await scene.hasty.publish(scene.channel, "meanwhile")
    await room.diary.wait("subscribed", number=2)
    await room.wait_heard("meanwhile")


@check
async def sub_refresh_without_channel(scene: Scene) -> None:
    peer = await scene.connected()
    await peer.subscribe(scene.channel, token=scene.token(ttl_s=600))
    [reply] = await peer.frame({"sub_refresh": {"token": scene.token(ttl_s=600)}})
    assert reply["error"]["code"] == 107
    await peer.subscribe(scene.small)
