"""Connections and subscriptions whose time is up, and whose clients do nothing about it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from beaconfire.auth.issue import connection_token, subscription_token
from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import assert_healthy, wait_session_end

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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), CONFIG) as server:
        yield server
        assert_healthy(server)


def test_a_connection_that_is_not_refreshed_ends_with_3005(server: ServerProcess) -> None:
    """Not before its time, and not long after its grace; 3005 says: come back with a new token."""

    async def scenario() -> None:
        started_s = time.time()
        token = connection_token(SECRET, "ann", now_unix_s=started_s, expires_in_s=2)
        async with undisturbed_traffic(server), JSONClient.connect(server.port, token) as client:
            assert client.connect_reply["expires"] is True
            assert 1 <= client.connect_reply["ttl"] <= 3
            error = await client.closed
            assert (error.code, error.reason) == (3005, "connection expired")
            assert started_s + 2 < time.time() < started_s + 3 + 0.5 + 2
            await wait_session_end(server, client.client_id, 3005)

    run_scenario(scenario())


def test_a_refreshed_connection_goes_on(server: ServerProcess) -> None:
    """The new token's time counts from then on."""

    async def scenario() -> None:
        token = connection_token(SECRET, "ann", now_unix_s=time.time(), expires_in_s=1)
        async with JSONClient.connect(server.port, token, ["room"]) as client:
            later = connection_token(SECRET, "ann", now_unix_s=time.time(), expires_in_s=600)
            assert (await client.request(refresh={"token": later}))["refresh"]["ttl"] > 500
            end_s = time.monotonic() + 4
            while time.monotonic() < end_s:
                await client.publish("room", "still here")
                await wait_until(lambda: client.received_data("room")[-1:] == ["still here"], "it hears itself")
            assert not client.closed.done()

    run_scenario(scenario())


def test_a_subscription_that_is_not_refreshed_ends_with_2501(server: ServerProcess) -> None:
    """Only the subscription: the client is told and its connection lives."""

    async def scenario() -> None:
        ann = connection_token(SECRET, "ann", now_unix_s=time.time())
        token = subscription_token(SECRET, "ann", "closed:room", now_unix_s=time.time(), expires_in_s=1)
        async with undisturbed_traffic(server), JSONClient.connect(server.port, ann) as client:
            reply = await client.request(subscribe={"channel": "closed:room", "token": token})
            assert reply["subscribe"]["expires"] is True
            await wait_until(lambda: bool(client.pushes), "the client is told")
            assert client.pushes == [
                {"channel": "closed:room", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}
            ]
            assert "subscribe" in await client.request(subscribe={"channel": "room"})

    run_scenario(scenario())
