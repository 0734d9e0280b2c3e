"""Every door leads to the same room: plain clients, SDK clients and the HTTP API, in the same order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from centrifuge import Client, PublicationContext, SubscriptionEventHandler
from websockets.asyncio.client import ClientConnection, connect

from beaconfire.auth.issue import connection_token, subscription_token
from tests.acceptance.server_process import API_KEY, SECRET, ServerProcess

DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("meeting")) as process:
        yield process


class Plain:
    """A plain client, which is a WebSocket and some JSON."""

    def __init__(self, socket: ClientConnection, user: str) -> None:
        self._socket = socket
        self._user = user

    async def say(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message))

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message of this type; joins of others may come between."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message: dict[str, Any] = json.loads(await self._socket.recv())
                if message["type"] == kind:
                    return message

    async def enter(self, room: str, **more: Any) -> dict[str, Any]:
        now_s = time.time()
        await self.say(type="handshake", token=connection_token(SECRET, self._user, now_unix_s=now_s))
        await self.hear("welcome")
        token = subscription_token(SECRET, self._user, room, now_unix_s=now_s)
        await self.say(type="join", room=room, token=token, **more)
        return await self.hear("joined")


class Listener(SubscriptionEventHandler):  # type: ignore[misc]  # the SDK has no types
    """What an SDK client hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()

    async def on_publication(self, ctx: PublicationContext) -> None:
        await self.heard.put((ctx.pub.offset, ctx.pub.data))


async def hang_up(client: Client) -> None:
    """Disconnects, and waits for what `disconnect` leaves to a task: the end of the connection.

    Without that the task is cancelled together with the loop, and its socket warns in whichever test comes next.
    """
    before = asyncio.all_tasks()
    await client.disconnect()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(asyncio.all_tasks() - before))


def publish(server: ServerProcess, **request: Any) -> dict[str, Any]:
    answer = httpx.post(f"{server.http}/api/publish", headers={"X-API-Key": API_KEY}, json=request)
    result: dict[str, Any] = answer.raise_for_status().json()["result"]
    return result


def test_all_doors_lead_to_one_room(server: ServerProcess) -> None:
    """A plain client, an SDK client and the API see one log, each message once, in one order."""

    async def meet() -> None:
        now_s = time.time()
        async with connect(server.plain) as socket:
            plain = Plain(socket, "41")
            await plain.enter("plaza")

            async def token(*_: object) -> str:
                return subscription_token(SECRET, "42", "plaza", now_unix_s=now_s)

            client = Client(server.websocket, token=connection_token(SECRET, "42", now_unix_s=now_s))
            listener = Listener()
            subscription = client.new_subscription("plaza", events=listener, get_token=token)
            await client.connect()
            await subscription.subscribe()
            await subscription.ready(DEADLINE_S)

            await plain.say(type="message", room="plaza", data="from plain", id=7)
            assert (await plain.hear("ack"))["offset"] == 1
            await subscription.publish("from the SDK")
            publish(server, channel="plaza", data="from the API")

            heard = [await asyncio.wait_for(listener.heard.get(), DEADLINE_S) for _ in range(3)]
            assert heard == [(1, "from plain"), (2, "from the SDK"), (3, "from the API")]
            messages = [await plain.hear("message") for _ in range(2)]
            assert [(m["offset"], m["data"]) for m in messages] == heard[1:]
            assert messages[0]["user"] == "42"
            await hang_up(client)

    asyncio.run(meet())


def test_a_plain_client_recovers_what_it_missed(server: ServerProcess) -> None:
    """`since` gives exactly what came after the position, and says so."""

    async def cut() -> None:
        async with connect(server.plain) as socket:
            joined = await Plain(socket, "41").enter("diary")
        since = {"offset": joined["offset"], "epoch": joined["epoch"]}
        for number in range(5):
            publish(server, channel="diary", data=number)
        async with connect(server.plain) as socket:
            back = await Plain(socket, "41").enter("diary", since=since)
            assert back["recovered"] is True
            assert [message["data"] for message in back["messages"]] == [0, 1, 2, 3, 4]
            assert back["offset"] == 5
        async with connect(server.plain) as socket:
            lost = await Plain(socket, "41").enter("diary", since={"offset": 2, "epoch": "another"})
            assert lost["recovered"] is False
            assert not lost.get("messages")

    asyncio.run(cut())


def test_the_lobby_repeats_frames_as_they_are(server: ServerProcess) -> None:
    """Text or binary, JSON or not, to everyone and to the sender, with no handshake."""

    async def shout() -> None:
        async with connect(server.plain) as one, connect(server.plain) as two:
            for frame in ("hello", b"\x00\xff", '{"any": "object"}', "[1, 2]", "", "烽火"):
                await one.send(frame)
                async with asyncio.timeout(DEADLINE_S):
                    assert (await one.recv(), await two.recv()) == (frame, frame)

    asyncio.run(shout())


def test_excluded_clients_do_not_hear_it_live(server: ServerProcess) -> None:
    """`exclude` keeps a publication from some clients, and from nobody else."""

    async def exclude() -> None:
        async with connect(server.plain) as one, connect(server.plain) as two:
            first, second = Plain(one, "41"), Plain(two, "42")
            now_s = time.time()
            await first.say(type="handshake", token=connection_token(SECRET, "41", now_unix_s=now_s))
            client = (await first.hear("welcome"))["client"]
            await first.say(
                type="join", room="secret", token=subscription_token(SECRET, "41", "secret", now_unix_s=now_s)
            )
            await first.hear("joined")
            await second.enter("secret")
            publish(server, channel="secret", data="surprise", exclude=[client])
            publish(server, channel="secret", data="for all")
            assert (await second.hear("message"))["data"] == "surprise"
            assert (await first.hear("message"))["data"] == "for all"

    asyncio.run(exclude())


def test_insecure_mode_looks_past_the_expiry_of_tokens(tmp_path: Path) -> None:
    """They are verified all the same: a wrong key is a wrong key."""

    async def arrive(process: ServerProcess) -> None:
        long_ago_s = time.time() - 86400
        async with connect(process.plain) as socket:
            plain = Plain(socket, "41")
            token = connection_token(SECRET, "41", now_unix_s=long_ago_s, expires_in_s=60)
            await plain.say(type="handshake", token=token)
            assert (await plain.hear("welcome"))["client"]
        async with connect(process.plain) as socket:
            await socket.send(
                json.dumps({"type": "handshake", "token": connection_token("other", "41", now_unix_s=1.0)})
            )
            await socket.wait_closed()
            assert socket.close_code == 3500

    with ServerProcess(tmp_path, overrides={"client.insecure": "true"}) as process:
        asyncio.run(arrive(process))
