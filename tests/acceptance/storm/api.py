"""Calls of the server API in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from tests.acceptance.server_process import API_KEY

BATCH = 500


async def call(port: int, *calls: tuple[str, dict[str, Any]]) -> None:
    """Makes the calls in order. Each must succeed."""
    async with httpx.AsyncClient(headers={"X-API-Key": API_KEY}, timeout=60) as http:
        for start in range(0, len(calls), BATCH):
            commands = [{method: parameters} for method, parameters in calls[start : start + BATCH]]
            answer = await http.post(f"http://127.0.0.1:{port}/api/batch", json={"commands": commands})
            assert answer.status_code == 200, answer.text
            assert [reply for reply in answer.json()["replies"] if "error" in reply] == []


async def publish_to_all(port: int, channels: Sequence[str], count: int) -> None:
    await call(port, *(("publish", {"channel": name, "data": n}) for n in range(count) for name in channels))
