"""The `info` of a client after the server API has changed it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import healthy_server, http_request

CHANNEL = "watched:room"


def test_refreshed_info_is_in_presence_and_in_the_leave(tmp_path: Path) -> None:
    """Presence replies and leave pushes have the `info` of the last refresh."""

    async def scenario(server: ServerProcess) -> None:
        async with JSONClient.connect(server.port, channels=[CHANNEL]) as watcher:
            async with JSONClient.connect(server.port, channels=[CHANNEL]) as client:
                body = {"client": client.client_id, "info": {"name": "Ann"}}
                status, response = await http_request(
                    server, "/api/refresh", json.dumps(body).encode(), {"Content-Type": "application/json"}
                )
                assert (status, json.loads(response)) == (200, {"result": {}})
                reply = await watcher.request(presence={"channel": CHANNEL})
                assert reply["presence"]["presence"][client.client_id]["conn_info"] == {"name": "Ann"}
                client_id = client.client_id

            def leaves() -> list[dict[str, object]]:
                infos = [push["leave"]["info"] for push in watcher.pushes if "leave" in push]
                return [info for info in infos if info["client"] == client_id]

            await wait_until(lambda: bool(leaves()), "the watcher has the leave")
            assert [info["conn_info"] for info in leaves()] == [{"name": "Ann"}]

    with healthy_server(tmp_path) as server:
        run_scenario(scenario(server))
