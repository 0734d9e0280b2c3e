"""Publishes many large publications, which fill the outboxes and the kernel buffers of peers that read nothing."""

from __future__ import annotations

import json

from tests.acceptance.background_traffic import CHANNEL
from tests.acceptance.deadlines import wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import http_request

TEXT_BYTES = 50_000
PUBLICATIONS_PER_MB = 20


async def publish_megabytes(
    server: ServerProcess, total_mb: int, channel: str = CHANNEL, subscriber: JSONClient | None = None
) -> int:
    """Publishes this much through the server API. Returns the peak of the server's resident memory, in bytes.

    After each megabyte this function waits until the `subscriber` has received it, so that the subscriber is not slow.
    """
    peak = 0
    already_received = len(received_batches(subscriber, channel)) if subscriber is not None else 0
    for batch in range(total_mb):
        commands = [
            {"publish": {"channel": channel, "data": {"batch": batch, "text": "x" * TEXT_BYTES}}}
            for _ in range(PUBLICATIONS_PER_MB)
        ]
        status, response = await http_request(server, "/api/batch", json.dumps({"commands": commands}).encode())
        assert status == 200, response
        if subscriber is not None:
            await wait_received(subscriber, channel, already_received + (batch + 1) * PUBLICATIONS_PER_MB)
        peak = max(peak, server.resident_bytes())
    return peak


async def wait_received(subscriber: JSONClient, channel: str, count: int) -> None:
    await wait_until(
        lambda: len(received_batches(subscriber, channel)) >= count, f"the subscriber has {count} publications"
    )


def received_batches(client: JSONClient, channel: str = CHANNEL) -> list[int]:
    """The batch numbers of the publications of `publish_megabytes` that the client has received."""
    return [data["batch"] for data in client.received_data(channel) if "batch" in data]
