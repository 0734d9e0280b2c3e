"""Connections and subscriptions whose time is up, and whose clients do nothing about it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from beaconfire.auth.issue import connection_token, subscription_token
from tests.acceptance.abuse.surroundings import assert_healthy, undisturbed, wait_ended
from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import Client, run, until

SECRET = "a-secret-of-the-decent-length-it-should-have"
CONFIG = f"""
[client]
allow_anonymous = true
expired_close_delay = "500ms"
expired_sub_close_delay = "500ms"
[token]
hmac_secret = "{SECRET}"
[channel]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
[namespaces.closed]
"""


@pytest.fixture(scope="module")
def punctual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("punctual"), CONFIG) as server:
        yield server
        assert_healthy(server)


def test_a_connection_that_is_not_refreshed_ends_with_3005(punctual: ServerProcess) -> None:
    """Not before its time, and not long after its grace; 3005 says: come back with a new token."""

    async def scenario() -> None:
        started_s = time.time()
        token = connection_token(SECRET, "ann", now_unix_s=started_s, expires_in_s=2)
        async with undisturbed(punctual), Client.connect(punctual.port, token) as client:
            assert client.connected["expires"] is True
            assert 1 <= client.connected["ttl"] <= 3
            error = await client.closed
            assert (error.code, error.reason) == (3005, "connection expired")
            assert started_s + 2 < time.time() < started_s + 3 + 0.5 + 2
            await wait_ended(punctual, client.identifier, 3005)

    run(scenario())


def test_a_refreshed_connection_goes_on(punctual: ServerProcess) -> None:
    """The new token's time counts from then on."""

    async def scenario() -> None:
        token = connection_token(SECRET, "ann", now_unix_s=time.time(), expires_in_s=1)
        async with Client.connect(punctual.port, token, ["room"]) as client:
            later = connection_token(SECRET, "ann", now_unix_s=time.time(), expires_in_s=600)
            assert (await client.ask(refresh={"token": later}))["refresh"]["ttl"] > 500
            end_s = time.monotonic() + 4
            while time.monotonic() < end_s:
                await client.publish("room", "still here")
                await until(lambda: client.received("room")[-1:] == ["still here"], "it hears itself")
            assert not client.closed.done()

    run(scenario())


def test_a_subscription_that_is_not_refreshed_ends_with_2501(punctual: ServerProcess) -> None:
    """Only the subscription: the client is told and its connection lives."""

    async def scenario() -> None:
        ann = connection_token(SECRET, "ann", now_unix_s=time.time())
        token = subscription_token(SECRET, "ann", "closed:room", now_unix_s=time.time(), expires_in_s=1)
        async with undisturbed(punctual), Client.connect(punctual.port, ann) as client:
            reply = await client.ask(subscribe={"channel": "closed:room", "token": token})
            assert reply["subscribe"]["expires"] is True
            await until(lambda: bool(client.pushes), "the client is told")
            assert client.pushes == [
                {"channel": "closed:room", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}
            ]
            assert "subscribe" in await client.ask(subscribe={"channel": "room"})

    run(scenario())
