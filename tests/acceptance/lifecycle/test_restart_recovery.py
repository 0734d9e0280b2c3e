"""Clients reconnect after `kill -9`, a cut or a drain, and learn whether all missed publications were recovered."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, NamedTuple

from tests.acceptance.background_traffic import CHANNEL
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import ClosedError, RawPeer
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import wait_metric

CLIENTS = 50
RETRY_DELAY_S = 0.05


class StoredPublication(NamedTuple):
    """A publication with its stream position."""

    epoch: str
    offset: int
    data: Any


class ReconnectingClient:
    """A client that keeps its stream position, and reconnects with this position when its connection ends."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.received: list[StoredPublication] = []
        """All publications, recovered or live."""
        self.replies: list[dict[str, Any]] = []
        """The subscribe replies, one per connection."""
        self.closes: list[ClosedError] = []
        """How each connection ended."""
        self._epoch = ""
        self._offset = 0
        self.peer: RawPeer | None = None
        self._task = asyncio.create_task(self._run())

    def restart(self) -> None:
        """Connects again after `stop`."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Closes the connection and does not reconnect."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self.peer is not None:
            self.peer.close()

    async def _run(self) -> None:
        while True:
            try:
                self.peer = await RawPeer.connect_websocket(self._server.port)
                await self._connect(self.peer)
                while True:
                    for message in await self.peer.read_messages():
                        await self._on_message(self.peer, message)
            except (OSError, EOFError):
                await asyncio.sleep(RETRY_DELAY_S)  # the server does not listen yet
            except ClosedError as error:
                self.closes.append(error)
            finally:
                if self.peer is not None:
                    self.peer.close()

    async def _connect(self, peer: RawPeer) -> None:
        subscribe: dict[str, Any] = {"channel": CHANNEL}
        if self._epoch:
            subscribe |= {"recover": True, "epoch": self._epoch, "offset": self._offset}
        await peer.send_json({"id": 1, "connect": {}}, {"id": 2, "subscribe": subscribe})

    async def _on_message(self, peer: RawPeer, message: dict[str, Any]) -> None:
        if not message:
            await peer.send_json({})
        elif message.get("id") == 2:
            reply = message["subscribe"]
            self.replies.append(reply)
            self._epoch = reply["epoch"]
            for publication in reply.get("publications", []):
                self._on_publication(publication)
            self._offset = reply.get("offset", 0)
        elif "push" in message:
            self._on_publication(message["push"]["pub"])

    def _on_publication(self, publication: dict[str, Any]) -> None:
        self._offset = publication["offset"]
        self.received.append(StoredPublication(self._epoch, self._offset, publication["data"]))


async def connect_clients(server: ServerProcess, data: list[Any]) -> list[ReconnectingClient]:
    """Connects `CLIENTS` clients, publishes the data and waits until all clients have received the data."""
    clients = [ReconnectingClient(server) for _ in range(CLIENTS)]
    await wait_until(lambda: all(client.replies for client in clients), "all are subscribed")
    await publish(server, data)
    await wait_until(lambda: all(len(client.received) == len(data) for client in clients), "all have the data")
    return clients


async def publish(server: ServerProcess, data: list[Any]) -> None:
    async with JSONClient.connect(server.port) as publisher:
        for each in data:
            await publisher.publish(CHANNEL, each)


def test_after_kill_clients_learn_that_history_is_lost(start_server: StartServer) -> None:
    """All clients reconnect, get `recovered` false and another epoch, and receive new publications."""
    server = start_server()

    async def scenario() -> None:
        clients = await connect_clients(server, list(range(10)))
        server.stop(signal.SIGKILL)
        await wait_until(lambda: all(client.closes for client in clients), "all connections have ended")
        await asyncio.to_thread(server.start)
        await wait_until(lambda: all(len(client.replies) == 2 for client in clients), "all have reconnected")
        await publish(server, ["after"])
        await wait_until(lambda: all(len(client.received) == 11 for client in clients), "all receive new publications")
        for client in clients:
            await client.stop()
        for client in clients:
            first, second = client.replies
            assert (second["recoverable"], second["was_recovering"]) == (True, True)
            assert second.get("recovered", False) is False
            assert second.get("publications", []) == []
            assert second["epoch"] != first["epoch"]
            assert [publication.data for publication in client.received] == [*range(10), "after"]
            assert client.received[-1] == (second["epoch"], 1, "after")
            assert {error.code for error in client.closes} == {1006}

    run_scenario(scenario())


def test_after_a_cut_clients_recover_all_publications(start_server: StartServer) -> None:
    """While the server keeps its history, clients recover in order and without a gap, and get `recovered` true."""
    server = start_server()

    async def scenario() -> None:
        clients = await connect_clients(server, list(range(10)))
        for client in clients[::2]:
            await client.stop()
        await wait_metric(server, "beaconfire_sessions", CLIENTS / 2)
        await publish(server, list(range(10, 20)))
        for client in clients[::2]:
            client.restart()
        await wait_until(lambda: all(len(client.received) >= 20 for client in clients), "all have 20 publications")
        for client in clients:
            await client.stop()
            assert [publication.data for publication in client.received] == list(range(20))
            assert [publication.offset for publication in client.received] == list(range(1, 21))
        for client in clients[::2]:
            assert (client.replies[1]["was_recovering"], client.replies[1]["recovered"]) == (True, True)
            assert client.replies[1]["epoch"] == client.replies[0]["epoch"]

    run_scenario(scenario())


def test_after_a_drain_clients_reconnect_to_the_restarted_server(start_server: StartServer) -> None:
    """Rolling restart: all clients are disconnected with 3001, reconnect, and get `recovered` false."""
    server = start_server({"server.drain_rate": "10"})

    async def scenario() -> None:
        clients = await connect_clients(server, ["before"])
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)
        await wait_until(lambda: all(len(client.replies) == 2 for client in clients), "all have reconnected")
        await publish(server, ["after"])
        await wait_until(lambda: all(len(client.received) == 2 for client in clients), "all receive new publications")
        for client in clients:
            await client.stop()
            assert client.closes[0].code == 3001
            assert client.replies[1].get("recovered", False) is False
            assert [publication.data for publication in client.received] == ["before", "after"]

    run_scenario(scenario())
