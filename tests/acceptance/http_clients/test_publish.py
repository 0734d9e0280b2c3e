"""Backends publish over the server API with HTTP clients of several languages, in their default settings.

Some clients request an upgrade to HTTP/2 (curl --http2, Java). Some send head and body in separate segments, or the
body in chunks. Each client publishes a small and a large message over one connection pool. The history must have
exactly these two.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.server_process import API_KEY, REFERENCE_CONFIG, ServerProcess

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
GO_PROGRAM = ROOT / ".cache" / "clients" / "publish-go"
RUN_DEADLINE_S = 40.0
"""The deadline of one client. Java first compiles its program."""


def curl_command(*options: str) -> Callable[[str, list[str]], list[str]]:
    """Returns a function that makes the command line for a URL and files."""

    def command(url: str, files: list[str]) -> list[str]:
        arguments = ["curl"]
        for file in files:
            arguments += [*options, "--silent", "--show-error", "--max-time", "10", "--header", f"X-API-Key: {API_KEY}"]
            arguments += ["--data-binary", f"@{file}", "--write-out", "\n", url, "--next"]
        return arguments[:-1]

    return command


def program_command(*start: str) -> Callable[[str, list[str]], list[str]]:
    """As `curl_command`, for a program with the arguments URL, KEY and FILE..."""
    return lambda url, files: [*start, url, API_KEY, *files]


CLIENTS = {
    "curl": curl_command(),
    "curl --http2": curl_command("--http2"),
    "curl --http1.0": curl_command("--http1.0"),
    "java": program_command("java", str(HERE / "Publish.java")),
    "go": program_command(str(GO_PROGRAM)),
    "node": program_command("node", str(HERE / "publish.mjs")),
    "requests": program_command(sys.executable, str(HERE / "publish.py"), "requests"),
    "httpx": program_command(sys.executable, str(HERE / "publish.py"), "httpx"),
    "aiohttp": program_command(sys.executable, str(HERE / "publish.py"), "aiohttp"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), REFERENCE_CONFIG) as process:
        yield process


@pytest.mark.parametrize("client", CLIENTS)
def test_http_client_publishes_each_message_once(server: ServerProcess, tmp_path: Path, client: str) -> None:
    """Each response has an offset, and the history has exactly the published data, in order."""
    channel = client.replace(" ", "")
    messages = [{"text": "烽火"}, {"text": "x" * 100_000}]
    files = []
    for number, message in enumerate(messages):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps({"channel": channel, "data": message}))
        files.append(str(file))
    command = CLIENTS[client](f"{server.http}/api/publish", files)
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=RUN_DEADLINE_S, check=False)
    except FileNotFoundError:
        pytest.fail(f"{command[0]} is missing; run: scripts/services")
    assert run.returncode == 0, run.stderr
    responses = [json.loads(line[line.index("{") :]) for line in run.stdout.splitlines() if line]
    assert [response.get("result", response).get("offset") for response in responses] == [1, 2], run.stdout
    request = {"channel": channel, "limit": -1}
    history = httpx.post(f"{server.http}/api/history", json=request, headers={"X-API-Key": API_KEY}, timeout=10).json()
    assert [publication["data"] for publication in history["result"]["publications"]] == messages
