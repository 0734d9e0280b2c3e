"""What others see of a client after the server API has changed its info."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import PERMISSIVE_CONFIG, ServerProcess
from tests.acceptance.server_state import assert_healthy, http_request

ROOM = "watched:room"


def test_a_new_info_is_in_presence_and_in_the_leave(tmp_path: Path) -> None:
    """A neighbour that asks who is here, or is told who left, sees the info that the backend gave last."""

    async def scenario(server: ServerProcess) -> None:
        async with JSONClient.connect(server.port, channels=[ROOM]) as neighbour:
            async with JSONClient.connect(server.port, channels=[ROOM]) as client:
                body = {"client": client.client_id, "info": {"name": "Ann"}}
                status, answer = await http_request(
                    server, "/api/refresh", json.dumps(body).encode(), {"Content-Type": "application/json"}
                )
                assert (status, json.loads(answer)) == (200, {"result": {}})
                reply = await neighbour.request(presence={"channel": ROOM})
                assert reply["presence"]["presence"][client.client_id]["conn_info"] == {"name": "Ann"}
                gone = client.client_id

            def leaves() -> list[dict[str, object]]:
                infos = [push["leave"]["info"] for push in neighbour.pushes if "leave" in push]
                return [info for info in infos if info["client"] == gone]

            await wait_until(lambda: bool(leaves()), "the neighbour is told that it left")
            assert [info["conn_info"] for info in leaves()] == [{"name": "Ann"}]

    with ServerProcess(tmp_path, PERMISSIVE_CONFIG) as server:
        run_scenario(scenario(server))
        assert_healthy(server)
