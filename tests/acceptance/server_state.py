"""Reads the state of a running server: HTTP responses, metrics, log lines, open files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.deadlines import DEADLINE_S, wait_until
from tests.acceptance.raw_peer import RawPeer
from tests.acceptance.server_process import PERMISSIVE_CONFIG, ServerProcess


async def http_request(
    server: ServerProcess, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Sends one request on a new connection: POST if there is a body, otherwise GET. Returns status and body."""
    fields = {"Host": "localhost", "Connection": "close", **(headers or {})}
    if body is not None:
        fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    async with await RawPeer.connect_tcp(server.port) as peer:
        await peer.send(f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\n{head}\r\n".encode(), body or b"")
        response = await peer.read_response_head()
        return response.status, await peer.read_to_end()


async def read_metrics(server: ServerProcess) -> dict[str, float]:
    """The current values of `/metrics`, by metric name with labels."""
    status, text = await http_request(server, "/metrics")
    assert status == 200
    lines = [line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def count_limit_hits(server: ServerProcess, limit: str) -> int:
    """How often the server has enforced the limit."""
    return int((await read_metrics(server)).get(f'beaconfire_limit_hits_total{{limit="{limit}"}}', 0))


async def wait_metric(server: ServerProcess, name: str, value: float, deadline_s: float = DEADLINE_S) -> None:
    """Returns when the metric has this value."""

    async def has_value() -> bool:
        return (await read_metrics(server)).get(name) == value

    await wait_until(has_value, f"{name} is {value}", deadline_s)


def session_end_code(server: ServerProcess, client_id: str) -> int:
    """The disconnect code of the session in the log; 0 if the session has not ended."""
    lines = server.log_lines("session_ended")
    return next((int(line["code"]) for line in lines if line["client"] == client_id), 0)


async def wait_session_end(server: ServerProcess, client_id: str, code: int) -> None:
    """Waits until the session has ended. Raises AssertionError if it ended with another code."""
    await wait_until(lambda: session_end_code(server, client_id) != 0, f"session {client_id} has ended")
    assert session_end_code(server, client_id) == code


def count_descriptors(server: ServerProcess) -> int:
    """The number of open files and sockets of the process."""
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def assert_healthy(server: ServerProcess) -> None:
    """Fails unless the server runs and its log has no errors and no lines other than JSON."""
    assert server.is_running
    bad = [line for line in list(server.log) if line["action"] == "unparsed" or line["level"] == "error"]
    assert bad == [], bad[0]


@contextmanager
def healthy_server(
    folder: Path, overrides: Mapping[str, str] | None = None, config: str = PERMISSIVE_CONFIG
) -> Iterator[ServerProcess]:
    """Runs a server with these settings. Fails at the end unless the server is healthy."""
    with ServerProcess(folder, config, overrides) as server:
        yield server
        assert_healthy(server)


def megabytes(count: float) -> int:
    """The number of bytes in `count` MiB."""
    return int(count * 1024 * 1024)
