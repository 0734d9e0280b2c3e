"""The behaviour of a client's session, which is the same on every transport."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import time
from typing import Any

import httpx
import pytest

from beaconfire.auth.issue import connection_token
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.server_process import API_KEY, SECRET, ServerProcess
from tests.conformance.transports.client_transports import CLIENT_TRANSPORTS, PERSISTENT_TRANSPORTS
from tests.conformance.transports.conftest import MakeTransport, StartServer
from tests.conformance.transports.encodings import SessionEndedError
from tests.conformance.transports.scenario_client import ScenarioClient, connected_client

_numbers = itertools.count(1)
HTTP = httpx.Client(timeout=20)
"""Shared, because making a client takes longer than a request."""
atexit.register(HTTP.close)


def token(user: str, expires_in_s: float = 600) -> str:
    return connection_token(SECRET, user, now_unix_s=time.time(), expires_in_s=expires_in_s)


@pytest.fixture
def room() -> str:
    """A channel that no other test uses."""
    return f"room{next(_numbers)}"


def call(server: ServerProcess, method: str, **request: Any) -> Any:
    response = HTTP.post(f"{server.http}/api/{method}", json=request, headers={"X-API-Key": API_KEY})
    return response.json()["result"]


def test_publications_are_acknowledged_and_ordered(make_transport: MakeTransport, room: str) -> None:
    """Two subscribers get all publications in one order, and the publisher gets a reply when they are stored."""

    async def scenario() -> None:
        async with (
            connected_client(make_transport(), token("ann"), room) as ann,
            connected_client(make_transport(), token("bob"), room) as bob,
        ):
            for number in range(20):
                publisher = (ann, bob)[number % 2]
                assert "publish" in await publisher.request(publish={"channel": room, "data": {"n": number}})
            expected = [(number + 1, {"n": number}) for number in range(20)]
            assert await ann.wait_publications(room, 20) == expected
            assert await bob.wait_publications(room, 20) == expected

    run_scenario(scenario())


def test_commands_of_one_frame_or_request_run_in_order(make_transport: MakeTransport, room: str) -> None:
    """Each of them has its reply."""

    async def scenario() -> None:
        async with connected_client(make_transport(), token("ann"), room) as ann:
            replies = await ann.request_all([{"publish": {"channel": room, "data": n}} for n in range(30)])
            assert all("publish" in reply for reply in replies)
            assert [data for _, data in await ann.wait_publications(room, 30)] == list(range(30))

    run_scenario(scenario())


def test_presence_and_join_and_leave_pushes(make_persistent_transport: MakeTransport, room: str) -> None:
    """Presence lists connected clients only, and other subscribers get a join and a leave push."""

    async def scenario() -> None:
        async with connected_client(make_persistent_transport(), token("ann"), room) as ann:
            async with connected_client(make_persistent_transport(), token("bob"), room):
                present = (await ann.request(presence={"channel": room}))["presence"]["presence"]
                assert sorted(info["user"] for info in present.values()) == ["ann", "bob"]
                await ann.wait_push(
                    lambda push: push.get("join", {}).get("info", {}).get("user") == "bob", "bob's join"
                )
            await ann.wait_push(lambda push: push.get("leave", {}).get("info", {}).get("user") == "bob", "bob's leave")
            present = (await ann.request(presence={"channel": room}))["presence"]["presence"]
            assert [info["user"] for info in present.values()] == ["ann"]

    run_scenario(scenario())


def test_client_recovers_after_a_lost_connection(
    make_transport: MakeTransport, room: str, server: ServerProcess
) -> None:
    """With its position, a client gets the missed publications once and in order, and then new publications."""

    async def scenario() -> None:
        async with connected_client(make_transport(), token("ann"), room) as ann:
            subscribed = await ann.request(publish={"channel": room, "data": 0})
            assert "publish" in subscribed
            (offset, _), *_ = await ann.wait_publications(room, 1)
        epoch = call(server, "history", channel=room)["epoch"]
        for number in range(1, 6):
            call(server, "publish", channel=room, data=number)
        async with connected_client(make_transport(), token("ann")) as ann:
            reply = await ann.request(subscribe={"channel": room, "recover": True, "offset": offset, "epoch": epoch})
            recovered = reply["subscribe"]
            assert recovered["recovered"] is True
            assert [pub["data"] for pub in recovered["publications"]] == [1, 2, 3, 4, 5]
            call(server, "publish", channel=room, data=6)
            assert await ann.wait_publications(room, 1) == [(7, 6)]

    run_scenario(scenario())


def test_command_error_does_not_end_the_session(make_transport: MakeTransport, room: str) -> None:
    """A refused command gets an error reply; later commands succeed."""

    async def scenario() -> None:
        async with connected_client(make_transport(), token("ann")) as ann:
            assert (await ann.request(publish={"channel": room, "data": 1}))["error"]["code"] == 103
            assert "subscribe" in await ann.request(subscribe={"channel": room})

    run_scenario(scenario())


@pytest.mark.parametrize(("given", "code"), [("nonsense", 3500), ("", 3501)])
def test_invalid_and_missing_tokens_end_the_session(make_transport: MakeTransport, given: str, code: int) -> None:
    """With a final code: a client must not reconnect."""

    async def scenario() -> None:
        client = ScenarioClient(make_transport())
        with pytest.raises(SessionEndedError):
            await client.request(connect={"token": given})
        assert await client.wait_ended() == code
        await client.abort()

    run_scenario(scenario())


def test_session_ends_when_its_token_expires(make_transport: MakeTransport, room: str) -> None:
    """Unless the client refreshes the token in time."""

    async def scenario() -> None:
        async with (
            connected_client(make_transport(), token("ann", 1.5), room) as ann,
            connected_client(make_transport(), token("bob", 1.5), room) as bob,
        ):
            reply = await bob.request(refresh={"token": token("bob")})
            assert reply["refresh"]["ttl"] > 500
            assert await ann.wait_ended() == 3005
            assert "publish" in await bob.request(publish={"channel": room, "data": 1})

    run_scenario(scenario())


def test_client_without_pongs_is_disconnected(
    make_persistent_transport: MakeTransport, room: str, server: ServerProcess
) -> None:
    """With code 3012. A client that answers pings stays connected."""

    async def scenario() -> None:
        async with connected_client(make_persistent_transport(), token("ann"), room) as ann:
            async with connected_client(make_persistent_transport(), token("mute"), answers_pings=False) as mute:
                assert await mute.wait_ended() == 3012
            assert "publish" in await ann.request(publish={"channel": room, "data": 1})

    run_scenario(scenario())


def test_disconnect_code_of_the_server_api_is_sent(make_transport: MakeTransport, server: ServerProcess) -> None:
    """The client gets the code from the call of `disconnect`."""

    async def scenario() -> None:
        user = f"user{next(_numbers)}"
        async with connected_client(make_transport(), token(user)) as client:

            async def is_disconnected() -> bool:
                """Repeats the call, because a poll has a session only while it waits."""
                await asyncio.to_thread(
                    call, server, "disconnect", user=user, disconnect={"code": 4501, "reason": "enough"}
                )
                return client.ended.done()

            await wait_until(is_disconnected, "the client is disconnected")
            assert await client.wait_ended() == 4501

    run_scenario(scenario())


def test_server_api_disconnects_by_client_and_session(
    make_persistent_transport: MakeTransport, server: ServerProcess
) -> None:
    """By the ids of the connect result. If the two ids belong to different connections, nothing happens."""

    async def scenario() -> None:
        user = f"user{next(_numbers)}"

        def disconnect(client: str, session: str) -> None:
            assert call(server, "disconnect", user=user, client=client, session=session) == {}

        async with (
            connected_client(make_persistent_transport(), token(user)) as one,
            connected_client(make_persistent_transport(), token(user)) as other,
        ):
            ids = [client.connected["client"] for client in (one, other)]
            sessions = [client.connected.get("session") or client.connected["client"] for client in (one, other)]
            await asyncio.to_thread(disconnect, ids[0], sessions[1])
            await asyncio.to_thread(disconnect, "unknown", sessions[0])
            await asyncio.to_thread(disconnect, ids[1], sessions[1])
            assert await other.wait_ended() == 3503
            assert not one.ended.done()
            await asyncio.to_thread(disconnect, "", sessions[0])
            assert await one.wait_ended() == 3503

    run_scenario(scenario())


def test_slow_reader_is_disconnected_with_3008(persistent_transport: str, start_server: StartServer) -> None:
    """Its queue is limited, and other subscribers get all publications."""
    server = start_server({"client.ping_interval": "25s"})

    def is_disconnected() -> bool:
        return any(line["user"] == "slow" and line["code"] == 3008 for line in server.log_lines("session_ended"))

    async def scenario() -> None:
        make_transport, count = PERSISTENT_TRANSPORTS[persistent_transport], 0
        async with connected_client(make_transport(server), token("ann"), "room") as ann:
            async with connected_client(make_transport(server), token("slow"), "room") as slow:
                slow.stop_reading()
                before = server.resident_bytes()
                while not is_disconnected():
                    await asyncio.to_thread(call, server, "publish", channel="room", data="x" * 100_000)
                    count += 1
                    assert count < 1000, "the slow client is still connected"
                    await ann.wait_publications("room", count)  # otherwise this client may become slow as well
                assert server.resident_bytes() - before < 60 * 1024 * 1024
            assert len(ann.publications("room")) == count
            assert "publish" in await ann.request(publish={"channel": "room", "data": 1})

    run_scenario(scenario())


def test_concurrent_emulation_requests_all_get_replies(room: str, server: ServerProcess) -> None:
    """Concurrent requests may overtake each other, but none is lost."""

    async def scenario() -> None:
        line = CLIENT_TRANSPORTS["http_stream-json"](server)
        async with connected_client(line, token("ann"), room) as ann:
            await asyncio.gather(*(ann.request(publish={"channel": room, "data": n}) for n in range(50)))
            received = await ann.wait_publications(room, 50)
            assert [offset for offset, _ in received] == list(range(1, 51))
            assert sorted(data for _, data in received) == list(range(50))

    run_scenario(scenario())
