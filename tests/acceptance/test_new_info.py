"""What others see of a client after the server API has changed its info."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.abuse.surroundings import OPEN_HOUSE, assert_healthy, http
from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import Client, run, until

ROOM = "watched:room"


def test_a_new_info_is_in_presence_and_in_the_leave(tmp_path: Path) -> None:
    """A neighbour that asks who is here, or is told who left, sees the info that the backend gave last."""

    async def scenario(server: ServerProcess) -> None:
        async with Client.connect(server.port, channels=[ROOM]) as neighbour:
            async with Client.connect(server.port, channels=[ROOM]) as client:
                body = {"client": client.identifier, "info": {"name": "Ann"}}
                status, answer = await http(
                    server, "/api/refresh", json.dumps(body).encode(), {"Content-Type": "application/json"}
                )
                assert (status, json.loads(answer)) == (200, {"result": {}})
                reply = await neighbour.ask(presence={"channel": ROOM})
                assert reply["presence"]["presence"][client.identifier]["conn_info"] == {"name": "Ann"}
                gone = client.identifier

            def leaves() -> list[dict[str, object]]:
                infos = [push["leave"]["info"] for push in neighbour.pushes if "leave" in push]
                return [info for info in infos if info["client"] == gone]

            await until(lambda: bool(leaves()), "the neighbour is told that it left")
            assert [info["conn_info"] for info in leaves()] == [{"name": "Ann"}]

    with ServerProcess(tmp_path, OPEN_HOUSE) as server:
        run(scenario(server))
        assert_healthy(server)
