"""What happens around an abuse: a server anyone may use, the neighbours in the room, and what the server counts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import Client, Peer, until

ROOM = "room"
PROMPT_S = 2.0
"""The longest a neighbour may wait for a message, apart from the time that server and test wait for a core. Alone it
takes a millisecond.
"""

TICK_S = 0.01
TICKS = 4
"""How many messages the neighbours exchange at least before, and again after what they are to be undisturbed by."""

OPEN_HOUSE = """
[client]
insecure = true
allowed_origins = ["http://good.example", "https://*.good.example"]
[api]
keys = ["api_key"]
insecure = true
[channel]
presence = true
history_size = 100
history_ttl = "300s"
force_recovery = true
[namespaces.bare]
[namespaces.json]
publication_data_format = "json"
[namespaces.watched]
presence = true
join_leave = true
force_push_join_leave = true
[plain]
lobby = true
"""
"""Anyone may connect and do anything: what is tested is what they do then."""


@asynccontextmanager
async def undisturbed(server: ServerProcess, room: str = ROOM, prompt_s: float = PROMPT_S) -> AsyncIterator[Client]:
    """Two neighbours talk in the room meanwhile. Fails unless each message arrives, promptly, once and in order.

    Gives the listener of the two.
    """
    async with (
        Client.connect(server.port, channels=[room]) as listener,
        Client.connect(server.port) as talker,
    ):
        sent: dict[int, float] = {}
        stop = asyncio.Event()
        kept_waiting_s = -core_waits_s(server)

        async def talk() -> None:
            while not stop.is_set():
                number = len(sent)
                sent[number] = time.monotonic()
                await talker.publish(room, {"tick": number})
                await asyncio.sleep(TICK_S)

        talking = asyncio.create_task(talk())
        try:
            await until(lambda: len(sent) >= TICKS, "the talk has begun")
            yield listener
            enough = len(sent) + TICKS
            await until(lambda: len(sent) >= enough or talking.done(), "the talk goes on")
        finally:
            stop.set()
            await talking
        await until(lambda: len(ticks(listener, room)) >= len(sent), "the neighbour has every tick")
        assert [number for number, _ in ticks(listener, room)] == list(sent), "in order, once each"
        assert not listener.closed.done()
        worst_s = max(at_s - sent[number] for number, at_s in ticks(listener, room))
        kept_waiting_s += core_waits_s(server)
        assert worst_s < prompt_s + kept_waiting_s, f"a neighbour waited for {worst_s:.3f} s"
        offsets = [arrived.offset for arrived in listener.publications[room]]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))) or set(offsets) == {0}


def core_waits_s(server: ServerProcess) -> float:
    """How long server and test have been ready to run while other processes had the cores, since each began.

    Their main threads, in which their event loops run; the kernel's schedstat counts nanoseconds.
    """
    texts = [Path(f"/proc/{pid}/schedstat").read_text() for pid in (server.pid, os.getpid())]
    return sum(int(text.split()[1]) for text in texts) / 1e9


def ticks(listener: Client, room: str = ROOM) -> list[tuple[int, float]]:
    """The ticks a listener got, in the order in which it got them, with their times."""
    arrivals = listener.publications.get(room, [])
    return [(each.data["tick"], each.at_s) for each in arrivals if isinstance(each.data, dict) and "tick" in each.data]


async def http(
    server: ServerProcess, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """One request on a connection of its own: POST if there is a body. Status and body of the answer."""
    lines = {"Host": "localhost", "Connection": "close", **(headers or {})}
    if body is not None:
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    async with await Peer.dial(server.port) as peer:
        await peer.send(f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\n{head}\r\n".encode(), body or b"")
        response = await peer.response()
        return response.status, await peer.rest()


async def figures(server: ServerProcess) -> dict[str, float]:
    """What `/metrics` says now, by name with labels."""
    status, text = await http(server, "/metrics")
    assert status == 200
    lines = [line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def hits(server: ServerProcess, limit: str) -> int:
    """How often a limit has taken effect."""
    return int((await figures(server)).get(f'beaconfire_limit_hits_total{{limit="{limit}"}}', 0))


async def wait_figure(server: ServerProcess, name: str, value: float, deadline_s: float = 20.0) -> None:
    async def holds() -> bool:
        return (await figures(server)).get(name) == value

    await until(holds, f"{name} is {value}", deadline_s)


def ended_with(server: ServerProcess, client: str) -> int:
    """The code with which a session ended, as the log has it; 0 if it has not."""
    return next((int(line["code"]) for line in server.actions("session_ended") if line["client"] == client), 0)


async def wait_ended(server: ServerProcess, client: str, code: int) -> None:
    await until(lambda: ended_with(server, client) != 0, f"session {client} has ended")
    assert ended_with(server, client) == code


async def enter(peer: Peer, room: str = ROOM, **wishes: object) -> str:
    """Connects and subscribes a raw peer of the native protocol; its client id. `wishes` go into the subscribe."""
    await peer.say({"id": 1, "connect": {}})
    client = str((await peer.reply(1))["connect"]["client"])
    await peer.say({"id": 2, "subscribe": {"channel": room, **wishes}})
    assert "subscribe" in await peer.reply(2)
    return client


def count_descriptors(server: ServerProcess) -> int:
    """Files and sockets the process has open."""
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def assert_healthy(server: ServerProcess) -> None:
    """Nothing happened that should not happen: no exception, neither ours nor a library's, and no line that is none."""
    assert server.is_running
    bad = [line for line in list(server.lines) if line["action"] == "unparsed" or line["level"] == "error"]
    assert bad == [], bad[0]


def megabytes(count: float) -> int:
    return int(count * 1024 * 1024)
