"""Backends publish with the HTTP client of their language, in its default settings.

Some of these clients ask for an upgrade to HTTP/2 with their first request (curl --http2, Java), some send head and
body apart, or the body in chunks. Each of them publishes twice over one connection pool, a small and a large message,
and the history must hold exactly these.
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
"""For one client; a Java program is compiled first."""


def curl(*options: str) -> Callable[[str, list[str]], list[str]]:
    def command(url: str, files: list[str]) -> list[str]:
        line = ["curl"]
        for file in files:
            line += [*options, "--silent", "--show-error", "--max-time", "10", "--header", f"X-API-Key: {API_KEY}"]
            line += ["--data-binary", f"@{file}", "--write-out", "\n", url, "--next"]
        return line[:-1]

    return command


def program(*start: str) -> Callable[[str, list[str]], list[str]]:
    return lambda url, files: [*start, url, API_KEY, *files]


CLIENTS = {
    "curl": curl(),
    "curl --http2": curl("--http2"),
    "curl --http1.0": curl("--http1.0"),
    "java": program("java", str(HERE / "Publish.java")),
    "go": program(str(GO_PROGRAM)),
    "node": program("node", str(HERE / "publish.mjs")),
    "requests": program(sys.executable, str(HERE / "python.py"), "requests"),
    "httpx": program(sys.executable, str(HERE / "python.py"), "httpx"),
    "aiohttp": program(sys.executable, str(HERE / "python.py"), "aiohttp"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), REFERENCE_CONFIG) as process:
        yield process


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_publishes_each_message_once(server: ServerProcess, tmp_path: Path, client: str) -> None:
    """Every answer says 200 and an offset, and history has the same data in the same order, and nothing else."""
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
    answers = [json.loads(line[line.index("{") :]) for line in run.stdout.splitlines() if line]
    assert [answer.get("result", answer).get("offset") for answer in answers] == [1, 2], run.stdout
    asked = {"channel": channel, "limit": -1}
    history = httpx.post(f"{server.http}/api/history", json=asked, headers={"X-API-Key": API_KEY}, timeout=10).json()
    assert [publication["data"] for publication in history["result"]["publications"]] == messages
