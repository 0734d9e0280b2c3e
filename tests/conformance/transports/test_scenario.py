"""One client's life, which is the same on every transport."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from beaconfire.auth.issue import connection_token
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.server_process import API_KEY, SECRET, ServerProcess
from tests.conformance.transports.conftest import CONFIG, Dial
from tests.conformance.transports.lines import LASTING, LINES
from tests.conformance.transports.seat import Seat, seated
from tests.conformance.transports.speech import EndedError

_numbers = itertools.count(1)
HTTP = httpx.Client(timeout=20)
"""Shared, because each takes longer to make than what it asks for."""
atexit.register(HTTP.close)


def token(user: str, expires_in_s: float = 600) -> str:
    return connection_token(SECRET, user, now_unix_s=time.time(), expires_in_s=expires_in_s)


@pytest.fixture
def room() -> str:
    """A channel of this test's own."""
    return f"room{next(_numbers)}"


def call(server: ServerProcess, method: str, **request: Any) -> Any:
    answer = HTTP.post(f"{server.http}/api/{method}", json=request, headers={"X-API-Key": API_KEY})
    return answer.json()["result"]


def test_publish_and_acknowledge(dial: Dial, room: str) -> None:
    """Two clients hear what both say in one order, and a publisher is told once it is stored."""

    async def scenario() -> None:
        async with seated(dial(), token("ann"), room) as ann, seated(dial(), token("bob"), room) as bob:
            for number in range(20):
                speaker = (ann, bob)[number % 2]
                assert "publish" in await speaker.ask(publish={"channel": room, "data": {"n": number}})
            expected = [(number + 1, {"n": number}) for number in range(20)]
            assert await ann.wait_heard(room, 20) == expected
            assert await bob.wait_heard(room, 20) == expected

    run_scenario(scenario())


def test_several_commands_together(dial: Dial, room: str) -> None:
    """Commands of one frame or request are handled in order, and each has its reply."""

    async def scenario() -> None:
        async with seated(dial(), token("ann"), room) as ann:
            replies = await ann.ask_all([{"publish": {"channel": room, "data": n}} for n in range(30)])
            assert all("publish" in reply for reply in replies)
            assert [data for _, data in await ann.wait_heard(room, 30)] == list(range(30))

    run_scenario(scenario())


def test_presence(dial_lasting: Dial, room: str) -> None:
    """Who is there is told; who was cut off is gone, and the others hear of both."""

    async def scenario() -> None:
        async with seated(dial_lasting(), token("ann"), room) as ann:
            async with seated(dial_lasting(), token("bob"), room):
                present = (await ann.ask(presence={"channel": room}))["presence"]["presence"]
                assert sorted(info["user"] for info in present.values()) == ["ann", "bob"]
                await ann.wait_push(
                    lambda push: push.get("join", {}).get("info", {}).get("user") == "bob", "bob's join"
                )
            await ann.wait_push(lambda push: push.get("leave", {}).get("info", {}).get("user") == "bob", "bob's leave")
            present = (await ann.ask(presence={"channel": room}))["presence"]["presence"]
            assert [info["user"] for info in present.values()] == ["ann"]

    run_scenario(scenario())


def test_recovery_after_a_cut(dial: Dial, room: str, server: ServerProcess) -> None:
    """Whoever comes back with its position gets what it missed, once and in order, and then what comes next."""

    async def scenario() -> None:
        async with seated(dial(), token("ann"), room) as ann:
            subscribed = await ann.ask(publish={"channel": room, "data": 0})
            assert "publish" in subscribed
            (offset, _), *_ = await ann.wait_heard(room, 1)
        epoch = call(server, "history", channel=room)["epoch"]
        for number in range(1, 6):
            call(server, "publish", channel=room, data=number)
        async with seated(dial(), token("ann")) as ann:
            reply = await ann.ask(subscribe={"channel": room, "recover": True, "offset": offset, "epoch": epoch})
            recovered = reply["subscribe"]
            assert recovered["recovered"] is True
            assert [pub["data"] for pub in recovered["publications"]] == [1, 2, 3, 4, 5]
            call(server, "publish", channel=room, data=6)
            assert await ann.wait_heard(room, 1) == [(7, 6)]

    run_scenario(scenario())


def test_errors(dial: Dial, room: str) -> None:
    """A command that is refused gets its error, and the session goes on."""

    async def scenario() -> None:
        async with seated(dial(), token("ann")) as ann:
            assert (await ann.ask(publish={"channel": room, "data": 1}))["error"]["code"] == 103
            assert "subscribe" in await ann.ask(subscribe={"channel": room})

    run_scenario(scenario())


@pytest.mark.parametrize(("given", "code"), [("nonsense", 3500), ("", 3501)])
def test_refused_tokens(dial: Dial, given: str, code: int) -> None:
    """A token that can never work, and none, end the session for good."""

    async def scenario() -> None:
        seat = Seat(dial())
        with pytest.raises(EndedError):
            await seat.ask(connect={"token": given})
        assert await seat.wait_ended() == code
        await seat.cut()

    run_scenario(scenario())


def test_expiry(dial: Dial, room: str) -> None:
    """A session ends with its token, unless it is refreshed in time."""

    async def scenario() -> None:
        async with seated(dial(), token("ann", 1.5), room) as ann, seated(dial(), token("bob", 1.5), room) as bob:
            reply = await bob.ask(refresh={"token": token("bob")})
            assert reply["refresh"]["ttl"] > 500
            assert await ann.wait_ended() == 3005
            assert "publish" in await bob.ask(publish={"channel": room, "data": 1})

    run_scenario(scenario())


def test_pings(dial_lasting: Dial, room: str, server: ServerProcess) -> None:
    """Whoever does not answer pings is told so, and whoever does stays."""

    async def scenario() -> None:
        async with seated(dial_lasting(), token("ann"), room) as ann:
            async with seated(dial_lasting(), token("mute"), answers_pings=False) as mute:
                assert await mute.wait_ended() == 3012
            assert "publish" in await ann.ask(publish={"channel": room, "data": 1})

    run_scenario(scenario())


def test_disconnected_by_the_backend(dial: Dial, server: ServerProcess) -> None:
    """The code a backend gives arrives."""

    async def scenario() -> None:
        user = f"user{next(_numbers)}"
        async with seated(dial(), token(user)) as seat:

            async def is_gone() -> bool:
                """Asked again, because a poll has a session only while it waits."""
                await asyncio.to_thread(
                    call, server, "disconnect", user=user, disconnect={"code": 4501, "reason": "enough"}
                )
                return seat.ended.done()

            await wait_until(is_gone, "the seat is gone")
            assert await seat.wait_ended() == 4501

    run_scenario(scenario())


def test_the_backend_names_client_and_session(dial_lasting: Dial, server: ServerProcess) -> None:
    """As the connect result has them, or the client id for both; where they are of two connections, nothing happens."""

    async def scenario() -> None:
        user = f"user{next(_numbers)}"

        def disconnect(client: str, session: str) -> None:
            assert call(server, "disconnect", user=user, client=client, session=session) == {}

        async with seated(dial_lasting(), token(user)) as one, seated(dial_lasting(), token(user)) as other:
            ids = [seat.connected["client"] for seat in (one, other)]
            sessions = [seat.connected.get("session") or seat.connected["client"] for seat in (one, other)]
            await asyncio.to_thread(disconnect, ids[0], sessions[1])
            await asyncio.to_thread(disconnect, "unknown", sessions[0])
            await asyncio.to_thread(disconnect, ids[1], sessions[1])
            assert await other.wait_ended() == 3503
            assert not one.ended.done()
            await asyncio.to_thread(disconnect, "", sessions[0])
            assert await one.wait_ended() == 3503

    run_scenario(scenario())


@pytest.mark.parametrize("name", LASTING)
def test_a_slow_reader_is_let_go(name: str, tmp_path: Path) -> None:
    """What waits for it is bounded, it is let go as slow, and its neighbours get everything."""
    with ServerProcess(tmp_path, CONFIG, {"client.ping_interval": "25s"}) as server:

        def is_let_go() -> bool:
            return any(line["user"] == "slow" and line["code"] == 3008 for line in server.log_lines("session_ended"))

        async def scenario() -> None:
            dial, count = LASTING[name], 0
            async with seated(dial(server.port), token("ann"), "room") as ann:
                async with seated(dial(server.port), token("slow"), "room") as slow:
                    slow.stop_reading()
                    before = server.resident_bytes()
                    while not is_let_go():
                        await asyncio.to_thread(call, server, "publish", channel="room", data="x" * 100_000)
                        count += 1
                        assert count < 1000, "nobody was slow"
                    assert server.resident_bytes() - before < 60 * 1024 * 1024
                assert len(await ann.wait_heard("room", count)) == count
                assert "publish" in await ann.ask(publish={"channel": "room", "data": 1})

        run_scenario(scenario())


@pytest.mark.parametrize("name", LINES)
def test_drain(name: str, tmp_path: Path) -> None:
    """SIGTERM tells everybody to come back elsewhere, and ends with exit code 0."""
    with ServerProcess(tmp_path, CONFIG, {"server.drain_window": "200ms"}) as server:

        async def scenario() -> None:
            async with seated(LINES[name](server.port), token("ann"), "room") as ann:
                await wait_until(
                    lambda: "room" in call(server, "channels")["channels"], "it is there, also if it polls"
                )
                assert await asyncio.to_thread(server.stop) == 0
                assert await ann.wait_ended() == 3001

        run_scenario(scenario())


def test_requests_overtake_each_other(room: str, server: ServerProcess) -> None:
    """Requests of the client's half at once: each is answered, and none is lost."""

    async def scenario() -> None:
        line = LINES["http_stream-json"](server.port)
        async with seated(line, token("ann"), room) as ann:
            await asyncio.gather(*(ann.ask(publish={"channel": room, "data": n}) for n in range(50)))
            heard = await ann.wait_heard(room, 50)
            assert [offset for offset, _ in heard] == list(range(1, 51))
            assert sorted(data for _, data in heard) == list(range(50))

    run_scenario(scenario())
