"""Plain clients, SDK clients and the server API use the same channels and see the same order."""

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


class PlainClient:
    """A client of the plain protocol: a WebSocket with JSON messages."""

    def __init__(self, socket: ClientConnection, user: str) -> None:
        self._socket = socket
        self._user = user

    async def send(self, **message: Any) -> None:
        await self._socket.send(json.dumps(message))

    async def receive(self, kind: str) -> dict[str, Any]:
        """Reads the next message of this type. Drops messages of other types, such as joins of other clients."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message: dict[str, Any] = json.loads(await self._socket.recv())
                if message["type"] == kind:
                    return message

    async def connect(self) -> dict[str, Any]:
        """Sends the handshake with a token. Returns the `welcome` message."""
        await self.send(type="handshake", token=connection_token(SECRET, self._user, now_unix_s=time.time()))
        return await self.receive("welcome")

    async def join(self, room: str, **fields: Any) -> dict[str, Any]:
        """Joins the room with a token. Returns the `joined` message."""
        token = subscription_token(SECRET, self._user, room, now_unix_s=time.time())
        await self.send(type="join", room=room, token=token, **fields)
        return await self.receive("joined")

    async def connect_and_join(self, room: str, **fields: Any) -> dict[str, Any]:
        await self.connect()
        return await self.join(room, **fields)


class PublicationQueue(SubscriptionEventHandler):  # type: ignore[misc]  # the SDK has no types
    """Offset and data of the publications that an SDK client receives."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[Any] = asyncio.Queue()

    async def on_publication(self, ctx: PublicationContext) -> None:
        await self.received.put((ctx.pub.offset, ctx.pub.data))


async def disconnect(client: Client) -> None:
    """Disconnects, and waits for the task in which the SDK closes the connection.

    Otherwise the event loop cancels the task at its end, and the open socket causes a warning in another test.
    """
    before = asyncio.all_tasks()
    await client.disconnect()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(asyncio.all_tasks() - before))


def publish(server: ServerProcess, **request: Any) -> dict[str, Any]:
    response = httpx.post(f"{server.http}/api/publish", headers={"X-API-Key": API_KEY}, json=request)
    result: dict[str, Any] = response.raise_for_status().json()["result"]
    return result


def test_plain_clients_sdk_clients_and_server_api_share_a_channel(server: ServerProcess) -> None:
    """All clients receive each message of a plain client, an SDK client and the API, once and in the same order."""

    async def scenario() -> None:
        now_s = time.time()
        async with connect(server.plain) as socket:
            plain = PlainClient(socket, "41")
            await plain.connect_and_join("plaza")

            async def token(*_: object) -> str:
                return subscription_token(SECRET, "42", "plaza", now_unix_s=now_s)

            client = Client(server.websocket, token=connection_token(SECRET, "42", now_unix_s=now_s))
            queue = PublicationQueue()
            subscription = client.new_subscription("plaza", events=queue, get_token=token)
            await client.connect()
            await subscription.subscribe()
            await subscription.ready(DEADLINE_S)

            await plain.send(type="message", room="plaza", data="from plain", id=7)
            assert (await plain.receive("ack"))["offset"] == 1
            await subscription.publish("from the SDK")
            publish(server, channel="plaza", data="from the API")

            received = [await asyncio.wait_for(queue.received.get(), DEADLINE_S) for _ in range(3)]
            assert received == [(1, "from plain"), (2, "from the SDK"), (3, "from the API")]
            messages = [await plain.receive("message") for _ in range(2)]
            assert [(m["offset"], m["data"]) for m in messages] == received[1:]
            assert messages[0]["user"] == "42"
            await disconnect(client)

    asyncio.run(scenario())


def test_plain_client_recovers_with_since(server: ServerProcess) -> None:
    """`joined` has all messages after the position of `since`, or `recovered` false if the epoch is another one."""

    async def scenario() -> None:
        async with connect(server.plain) as socket:
            joined = await PlainClient(socket, "41").connect_and_join("diary")
        since = {"offset": joined["offset"], "epoch": joined["epoch"]}
        for number in range(5):
            publish(server, channel="diary", data=number)
        async with connect(server.plain) as socket:
            recovered = await PlainClient(socket, "41").connect_and_join("diary", since=since)
            assert recovered["recovered"] is True
            assert [message["data"] for message in recovered["messages"]] == [0, 1, 2, 3, 4]
            assert recovered["offset"] == 5
        async with connect(server.plain) as socket:
            lost = await PlainClient(socket, "41").connect_and_join("diary", since={"offset": 2, "epoch": "another"})
            assert lost["recovered"] is False
            assert not lost.get("messages")

    asyncio.run(scenario())


def test_lobby_delivers_frames_unchanged(server: ServerProcess) -> None:
    """All connections, also the sender, receive text and binary frames, without a handshake."""

    async def scenario() -> None:
        async with connect(server.plain) as one, connect(server.plain) as two:
            for frame in ("hello", b"\x00\xff", '{"any": "object"}', "[1, 2]", "", "烽火"):
                await one.send(frame)
                async with asyncio.timeout(DEADLINE_S):
                    assert (await one.recv(), await two.recv()) == (frame, frame)

    asyncio.run(scenario())


def test_excluded_client_does_not_receive_the_publication(server: ServerProcess) -> None:
    """The other subscribers receive a publication with `exclude`."""

    async def scenario() -> None:
        async with connect(server.plain) as one, connect(server.plain) as two:
            first, second = PlainClient(one, "41"), PlainClient(two, "42")
            client = (await first.connect())["client"]
            await first.join("secret")
            await second.connect_and_join("secret")
            publish(server, channel="secret", data="surprise", exclude=[client])
            publish(server, channel="secret", data="for all")
            assert (await second.receive("message"))["data"] == "surprise"
            assert (await first.receive("message"))["data"] == "for all"

    asyncio.run(scenario())


def test_insecure_mode_ignores_the_expiry_of_tokens(tmp_path: Path) -> None:
    """The server still verifies the signature: a token of another key is refused with 3500."""

    async def scenario(process: ServerProcess) -> None:
        yesterday_s = time.time() - 86400
        async with connect(process.plain) as socket:
            plain = PlainClient(socket, "41")
            token = connection_token(SECRET, "41", now_unix_s=yesterday_s, expires_in_s=60)
            await plain.send(type="handshake", token=token)
            assert (await plain.receive("welcome"))["client"]
        async with connect(process.plain) as socket:
            await socket.send(
                json.dumps({"type": "handshake", "token": connection_token("other", "41", now_unix_s=1.0)})
            )
            await socket.wait_closed()
            assert socket.close_code == 3500

    with ServerProcess(tmp_path, overrides={"client.insecure": "true"}) as process:
        asyncio.run(scenario(process))
