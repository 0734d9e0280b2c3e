"""kill -9: clients come back to a restarted server and learn the truth about the history it lost."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from tests.acceptance.background_traffic import CHANNEL
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import ClosedError, RawPeer
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import wait_metric

CLIENTS = 50


class Returning:
    """A client that remembers its position, and comes back with it whenever its connection ends."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.got: list[tuple[str, int, Any]] = []
        """Epoch, offset and data of everything, recovered or live."""
        self.replies: list[dict[str, Any]] = []
        """The subscribe replies."""
        self.ends: list[ClosedError] = []
        self._epoch = ""
        self._offset = 0
        self.peer: RawPeer | None = None
        self._living = asyncio.create_task(self._live())

    async def stop(self) -> None:
        self._living.cancel()
        await asyncio.gather(self._living, return_exceptions=True)
        if self.peer is not None:
            self.peer.close()

    async def _live(self) -> None:
        while True:
            try:
                self.peer = await RawPeer.connect_websocket(self._server.port)
                await self._enter(self.peer)
                while True:
                    for message in await self.peer.read_messages():
                        await self._take(self.peer, message)
            except (OSError, EOFError):
                await asyncio.sleep(0.05)  # nobody there yet
            except ClosedError as error:
                self.ends.append(error)
            finally:
                if self.peer is not None:
                    self.peer.close()

    async def _enter(self, peer: RawPeer) -> None:
        wish: dict[str, Any] = {"channel": CHANNEL}
        if self._epoch:
            wish |= {"recover": True, "epoch": self._epoch, "offset": self._offset}
        await peer.send_json({"id": 1, "connect": {}}, {"id": 2, "subscribe": wish})

    async def _take(self, peer: RawPeer, message: dict[str, Any]) -> None:
        if not message:
            await peer.send_json({})
        elif message.get("id") == 2:
            reply = message["subscribe"]
            self.replies.append(reply)
            self._epoch = reply["epoch"]
            for publication in reply.get("publications", []):
                self._note(publication)
            self._offset = reply.get("offset", 0)
        elif "push" in message:
            self._note(message["push"]["pub"])

    def _note(self, publication: dict[str, Any]) -> None:
        self._offset = publication["offset"]
        self.got.append((self._epoch, self._offset, publication["data"]))


async def publish(server: ServerProcess, data: list[Any]) -> None:
    async with JSONClient.connect(server.port) as talker:
        for each in data:
            await talker.publish(CHANNEL, each)


def test_after_kill_clients_learn_that_history_is_gone(start_server: StartServer) -> None:
    """All come back to the restarted server, are told recovered false and another epoch, and are live again."""
    server = start_server()

    async def scenario() -> None:
        clients = [Returning(server) for _ in range(CLIENTS)]
        await wait_until(lambda: all(client.replies for client in clients), "all are in")
        await publish(server, list(range(10)))
        await wait_until(lambda: all(len(client.got) == 10 for client in clients), "all have ten")
        server.stop(signal.SIGKILL)
        await wait_until(lambda: all(client.ends for client in clients), "all have noticed")
        await asyncio.to_thread(server.start)
        await wait_until(lambda: all(len(client.replies) == 2 for client in clients), "all are back")
        await publish(server, ["after"])
        await wait_until(lambda: all(len(client.got) == 11 for client in clients), "all are live again")
        for client in clients:
            await client.stop()
        for client in clients:
            first, second = client.replies
            assert (second["recoverable"], second["was_recovering"]) == (True, True)
            assert second.get("recovered", False) is False
            assert second.get("publications", []) == []
            assert second["epoch"] != first["epoch"]
            assert [got[2] for got in client.got] == [*range(10), "after"]
            assert client.got[-1] == (second["epoch"], 1, "after")
            assert {error.code for error in client.ends} == {1006}

    run_scenario(scenario())


def test_after_a_cut_the_same_server_has_it_all(start_server: StartServer) -> None:
    """The opposite: where history is there, it is recovered, in order and without a hole, and that is said too."""
    server = start_server()

    async def scenario() -> None:
        clients = [Returning(server) for _ in range(CLIENTS)]
        await wait_until(lambda: all(client.replies for client in clients), "all are in")
        await publish(server, list(range(10)))
        await wait_until(lambda: all(len(client.got) == 10 for client in clients), "all have ten")
        for client in clients[::2]:
            await client.stop()
        await wait_metric(server, "beaconfire_sessions", CLIENTS / 2)
        await publish(server, list(range(10, 20)))
        for client in clients[::2]:
            client._living = asyncio.create_task(client._live())
        await wait_until(lambda: all(len(client.got) >= 20 for client in clients), "all have twenty")
        for client in clients:
            await client.stop()
            assert [got[2] for got in client.got] == list(range(20))
            assert [got[1] for got in client.got] == list(range(1, 21))
        for client in clients[::2]:
            assert (client.replies[1]["was_recovering"], client.replies[1]["recovered"]) == (True, True)
            assert client.replies[1]["epoch"] == client.replies[0]["epoch"]

    run_scenario(scenario())


def test_after_a_drain_clients_come_back_to_the_next_server(start_server: StartServer) -> None:
    """A rolling restart: each is told 3001, comes back by itself, and learns the truth as well."""
    server = start_server({"server.drain_window": "500ms"})

    async def scenario() -> None:
        clients = [Returning(server) for _ in range(CLIENTS)]
        await wait_until(lambda: all(client.replies for client in clients), "all are in")
        await publish(server, ["before"])
        await wait_until(lambda: all(client.got for client in clients), "all have it")
        assert await asyncio.to_thread(server.stop) == 0
        await asyncio.to_thread(server.start)
        await wait_until(lambda: all(len(client.replies) == 2 for client in clients), "all are back")
        await publish(server, ["after"])
        await wait_until(lambda: all(len(client.got) == 2 for client in clients), "all are live again")
        for client in clients:
            await client.stop()
            assert client.ends[0].code == 3001
            assert client.replies[1].get("recovered", False) is False
            assert [got[2] for got in client.got] == ["before", "after"]

    run_scenario(scenario())
