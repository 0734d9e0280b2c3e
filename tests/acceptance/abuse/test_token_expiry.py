"""Connection tokens and subscription tokens expire, and the client does or does not refresh them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from beaconfire.auth.issue import connection_token, subscription_token
from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import healthy_server, wait_session_end

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
[namespaces.private]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with short delays between expiry and close."""
    with healthy_server(tmp_path_factory.mktemp("server"), config=CONFIG) as process:
        yield process


def test_connection_that_is_not_refreshed_is_closed_with_3005(server: ServerProcess) -> None:
    """The server closes the connection after the expiry and `client.expired_close_delay`, and not before the expiry."""

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


def test_refreshed_connection_stays_open(server: ServerProcess) -> None:
    """After a refresh, the expiry of the new token counts."""

    async def scenario() -> None:
        token = connection_token(SECRET, "ann", now_unix_s=time.time(), expires_in_s=1)
        async with JSONClient.connect(server.port, token, ["room"]) as client:
            new_token = connection_token(SECRET, "ann", now_unix_s=time.time(), expires_in_s=600)
            assert (await client.request(refresh={"token": new_token}))["refresh"]["ttl"] > 500
            end_s = time.monotonic() + 4
            while time.monotonic() < end_s:
                await client.publish("room", "still here")
                await wait_until(
                    lambda: client.received_data("room")[-1:] == ["still here"],
                    "the publication arrived",
                )
            assert not client.closed.done()

    run_scenario(scenario())


def test_subscription_that_is_not_refreshed_ends_with_2501(server: ServerProcess) -> None:
    """The client receives an unsubscribe push, and its connection stays open."""

    async def scenario() -> None:
        ann = connection_token(SECRET, "ann", now_unix_s=time.time())
        token = subscription_token(SECRET, "ann", "private:room", now_unix_s=time.time(), expires_in_s=1)
        async with undisturbed_traffic(server), JSONClient.connect(server.port, ann) as client:
            reply = await client.request(subscribe={"channel": "private:room", "token": token})
            assert reply["subscribe"]["expires"] is True
            await wait_until(lambda: bool(client.pushes), "the client has received the unsubscribe push")
            assert client.pushes == [
                {"channel": "private:room", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}
            ]
            assert "subscribe" in await client.request(subscribe={"channel": "room"})

    run_scenario(scenario())
