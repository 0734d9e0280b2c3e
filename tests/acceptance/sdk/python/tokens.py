"""Checks of tokens: invalid tokens are refused with the right codes, valid tokens are refreshed in time."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt

from tests.acceptance.sdk.python.backend import connection_token, subscription_token
from tests.acceptance.sdk.python.scenario import Scenario, Tokens, check

TTL_S = 2.0
"""Long enough that a token is still valid when a server on a busy machine verifies it."""


def _server_code(context: Any) -> int:
    """The server's error code in an error event, 0 if the error is another one."""
    return int(getattr(context.error, "code", 0))


@check
async def expired_token(scenario: Scenario) -> None:
    user = scenario.user("ann")
    tokens = Tokens(lambda: connection_token(user, ttl_s=-60), lambda: connection_token(user, ttl_s=600))
    peer = await scenario.connected(get_token=tokens)
    assert tokens.asked == 2
    assert [_server_code(context) for context in peer.event_log.all("error")] == [109]


@check
async def expired_token_with_a_subscription(scenario: Scenario) -> None:
    user = scenario.user("ann")
    tokens = Tokens(lambda: connection_token(user, ttl_s=-60), lambda: connection_token(user))
    peer = scenario.peer(get_token=tokens)
    room = peer.room(scenario.channel, token=scenario.token())
    await room.subscription.subscribe()
    await peer.connect()
    await room.event_log.wait("subscribed")
    assert all(context.code < 3500 for context in peer.event_log.all("disconnected"))


@check
async def forged_token(scenario: Scenario) -> None:
    peer = scenario.peer(token=jwt.encode({"sub": "ann"}, "another secret", algorithm="HS256"))
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def unsigned_token(scenario: Scenario) -> None:
    peer = scenario.peer(token=jwt.encode({"sub": "ann"}, "", algorithm="none"))
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def token_of_another_algorithm(scenario: Scenario) -> None:
    _, payload, signature = connection_token("ann").split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"RS256","typ":"JWT"}').decode().rstrip("=")
    peer = scenario.peer(token=f"{header}.{payload}.{signature}")
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def malformed_token(scenario: Scenario) -> None:
    peer = scenario.peer(token="no.jwt")
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def subscription_token_to_connect(scenario: Scenario) -> None:
    peer = scenario.peer(token=scenario.token())
    await peer.client.connect()
    await peer.wait_refused(3500)


@check
async def missing_token(scenario: Scenario) -> None:
    peer = scenario.peer(token="")
    await peer.client.connect()
    await peer.wait_refused(3501)


async def _subscribe_refused(scenario: Scenario, code: int, **options: Any) -> None:
    """The server refuses the subscription with an error, and the connection continues."""
    peer = await scenario.connected()
    room = peer.room(scenario.channel, **options)
    await room.subscription.subscribe()
    await room.event_log.wait("unsubscribed", code=code)
    await peer.subscribe(scenario.small)


async def _subscribe_disconnected(scenario: Scenario, code: int, token: str) -> None:
    """The attempt ends the connection, and the client does not reconnect."""
    peer = await scenario.connected()
    await peer.room(scenario.channel, token=token).subscription.subscribe()
    await peer.wait_refused(code)


@check
async def missing_subscription_token(scenario: Scenario) -> None:
    await _subscribe_refused(scenario, 103)


@check
async def forged_subscription_token(scenario: Scenario) -> None:
    claims = {"sub": scenario.user("ann"), "channel": scenario.channel}
    await _subscribe_refused(scenario, 103, token=jwt.encode(claims, "another secret", algorithm="HS256"))


@check
async def connection_token_to_subscribe(scenario: Scenario) -> None:
    await _subscribe_refused(scenario, 103, token=connection_token(scenario.user("ann")))


@check
async def subscription_token_of_another_channel(scenario: Scenario) -> None:
    await _subscribe_disconnected(scenario, 3500, scenario.token(channel="elsewhere"))


@check
async def subscription_token_of_another_user(scenario: Scenario) -> None:
    await _subscribe_disconnected(scenario, 3500, scenario.token("eve"))


@check
async def expired_subscription_token(scenario: Scenario) -> None:
    peer = await scenario.connected()
    tokens = Tokens(lambda: scenario.token(ttl_s=-60), lambda: scenario.token(ttl_s=600))
    room = await peer.subscribe(scenario.channel, get_token=tokens)
    assert tokens.asked == 2
    assert [_server_code(context) for context in room.event_log.all("error")] == [109]


@check
async def private_channel(scenario: Scenario) -> None:
    peer = await scenario.connected()
    private = f"$small:{scenario.name}"
    room = peer.room(private)
    await room.subscription.subscribe()
    await room.event_log.wait("unsubscribed", code=103)
    peer.client.remove_subscription(room.subscription)
    await peer.subscribe(private, token=scenario.token(channel=private))


@check
async def refresh(scenario: Scenario) -> None:
    user = scenario.user("ann")
    tokens = Tokens(lambda: connection_token(user, ttl_s=TTL_S))
    peer = await scenario.connected(get_token=tokens, port=scenario.fast.port)
    room = await peer.subscribe(scenario.channel, token=scenario.token())
    await tokens.wait_asked(4)
    await scenario.fast.publish(scenario.channel, "still here")
    await room.wait_publications("still here")
    assert {kind for kind, _ in peer.event_log.entries} == {"connecting", "connected", "subscribed", "join"}
    assert len(peer.event_log.all("connected")) == 1


@check
async def refresh_with_expired_token(scenario: Scenario) -> None:
    user = scenario.user("ann")
    tokens = Tokens(
        lambda: connection_token(user, ttl_s=TTL_S),
        lambda: connection_token(user, ttl_s=-60),
        lambda: connection_token(user),
    )
    peer = await scenario.connected(get_token=tokens)
    await peer.wait_lost(3005)
    await peer.event_log.wait("connected", number=2)


@check
async def refresh_for_another_user(scenario: Scenario) -> None:
    tokens = Tokens(lambda: connection_token(scenario.user("ann"), ttl_s=TTL_S), lambda: connection_token("eve"))
    peer = await scenario.connected(get_token=tokens)
    await peer.wait_refused(3500)


@check
async def connection_expiry(scenario: Scenario) -> None:
    tokens = Tokens(
        lambda: connection_token(scenario.user("ann"), ttl_s=TTL_S),
        RuntimeError("the backend is down"),
        lambda: connection_token(scenario.user("ann")),
    )
    peer = await scenario.connected(get_token=tokens, port=scenario.fast.port)
    await peer.wait_lost(3005)
    await peer.event_log.wait("connected", number=2)


@check
async def sub_refresh(scenario: Scenario) -> None:
    peer = await scenario.connected(port=scenario.fast.port)
    tokens = Tokens(lambda: scenario.token(ttl_s=TTL_S))
    room = await peer.subscribe(scenario.channel, get_token=tokens)
    await tokens.wait_asked(4)
    await scenario.fast.publish(scenario.channel, "still here")
    await room.wait_publications("still here")
    assert {kind for kind, _ in room.event_log.entries} == {"subscribing", "subscribed", "publication", "join"}
    assert len(room.event_log.all("subscribed")) == 1


@check
async def sub_refresh_with_expired_token(scenario: Scenario) -> None:
    peer = await scenario.connected()
    tokens = Tokens(
        lambda: scenario.token(ttl_s=TTL_S), lambda: scenario.token(ttl_s=-60), lambda: scenario.token(ttl_s=600)
    )
    room = await peer.subscribe(scenario.channel, get_token=tokens)
    await peer.wait_lost(3006)
    await room.event_log.wait("subscribed", number=2)


@check
async def sub_refresh_for_another_user(scenario: Scenario) -> None:
    peer = await scenario.connected()
    tokens = Tokens(lambda: scenario.token(ttl_s=TTL_S), lambda: subscription_token("eve", scenario.channel))
    await peer.subscribe(scenario.channel, get_token=tokens)
    await peer.wait_refused(3500)


@check
async def subscription_expiry(scenario: Scenario) -> None:
    peer = await scenario.connected(port=scenario.fast.port)
    tokens = Tokens(lambda: scenario.token(ttl_s=TTL_S), RuntimeError("the backend is down"), scenario.token)
    room = await peer.subscribe(scenario.channel, get_token=tokens)
    await room.event_log.wait("subscribing", code=2501)
    await scenario.fast.publish(scenario.channel, "meanwhile")
    await room.event_log.wait("subscribed", number=2)
    await room.wait_publications("meanwhile")


@check
async def sub_refresh_without_channel(scenario: Scenario) -> None:
    peer = await scenario.connected()
    await peer.subscribe(scenario.channel, token=scenario.token(ttl_s=600))
    [reply] = await peer.frame({"sub_refresh": {"token": scenario.token(ttl_s=600)}})
    assert reply["error"]["code"] == 107
    await peer.subscribe(scenario.small)


def _later_unix_s() -> float:
    """The `iat` of a token that was issued after everything that a check revokes."""
    return time.time() + 60


@check
async def revoked_token(scenario: Scenario) -> None:
    user = scenario.user("ann")
    tokens = Tokens(lambda: connection_token(user), lambda: connection_token(user, iat=_later_unix_s()))
    peer = await scenario.connected(get_token=tokens)
    await scenario.backend.call("revoke", user=user)
    await peer.wait_lost(3005)
    await peer.event_log.wait("connected", number=2)
    assert tokens.asked == 2


@check
async def revoked_subscription_token(scenario: Scenario) -> None:
    peer = await scenario.connected()
    tokens = Tokens(scenario.token, lambda: scenario.token(iat=_later_unix_s()))
    room = await peer.subscribe(scenario.channel, get_token=tokens)
    await scenario.backend.call("revoke", user=scenario.user("ann"), channel=scenario.channel)
    await room.event_log.wait("subscribing", code=2501)
    await scenario.backend.publish(scenario.channel, "meanwhile")
    await room.event_log.wait("subscribed", number=2)
    await room.wait_publications("meanwhile")
    assert tokens.asked == 2
