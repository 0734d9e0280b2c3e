"""`beaconfire bench` as a user runs it, against real servers: it measures, it finds what is wrong, and it ends.

Machines that run tests are busy, so that the load side is the bottleneck (exit code 3) is no failure of these.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from beaconfire.auth.issue import connection_token
from tests.acceptance.server_process import REFERENCE_CONFIG, SECRET, ServerProcess

OPEN_CONFIG = """
[server]
host = "127.0.0.1"
[client]
allow_anonymous = true
[channel]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_subscriber = true
allow_publish_for_anonymous = true
"""

WHOLE = (0, 3)
DEADLINE_S = 45.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("bench"), OPEN_CONFIG) as process:
        yield process


@contextmanager
def started(url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a child process, which does not outlive the test whatever happens."""
    command = [str(Path(sys.executable).with_name("beaconfire")), "bench", url, *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str], words: str = "") -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    stdout, stderr = process.communicate(words, timeout=DEADLINE_S)
    return process.returncode, stdout, stderr


def bench(url: str, *options: str, words: str = "") -> tuple[int, Any]:
    """The exit code and the report."""
    small = ("--connections", "20", "--rate", "50/s", "--duration", "1s", "--warm-up", "200ms", "--json")
    with started(url, *small, *options) as process:
        code, stdout, stderr = end(process, words)
    assert stderr == ""
    return code, json.loads(stdout)


@pytest.mark.parametrize("encoding", [(), ("--protobuf",)], ids=["json", "protobuf"])
@pytest.mark.parametrize("processes", ["1", "3"])
def test_everything_arrives(server: ServerProcess, encoding: tuple[str, ...], processes: str) -> None:
    """Each message at each connection, whichever process published it; latency has been measured for all of them."""
    code, report = bench(server.websocket, *encoding, "--processes", processes)
    run = report["run"]
    assert code in WHOLE, report
    assert report["connecting"]["opened"] == 20
    assert (run["sent"], run["expected"], run["delivered"], run["missing"]) == (50, 1000, 1000, 0)
    assert 0 < run["latency"]["p50_ms"] <= run["latency"]["p99_ms"] <= run["latency"]["max_ms"]
    assert run["troubles"] == report["troubles"] == []


def test_rooms_and_channels(server: ServerProcess) -> None:
    """Rooms divide the connections; channels are for all of them."""
    code, report = bench(server.websocket, "--rooms", "5", "--payload", "300")
    assert code in WHOLE, report
    assert report["run"]["delivered"] == 50 * 4
    code, report = bench(server.websocket, "--channels", "5", "--processes", "2", "--protobuf")
    assert code in WHOLE, report
    assert report["run"]["delivered"] == 50 * 20


def test_tokens(tmp_path: Path) -> None:
    """Signed for each connection, from standard input as well, or read from a file. No secret is printed."""
    options = ("--prefix", "small:bench")
    file = tmp_path / "tokens"
    file.write_text("\n".join(connection_token(SECRET, user, now_unix_s=time.time()) for user in ("ann", "bob")))
    with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
        for more, words in (
            (("--token-secret", SECRET), ""),
            (("--token-secret", "-"), SECRET + "\n"),
            (("--token", str(file)), ""),
        ):
            code, report = bench(server.websocket, *options, *more, words=words)
            assert code in WHOLE, report
            assert report["run"]["delivered"] == 1000
        code, report = bench(server.websocket, *options, "--token-secret", "hush-hush-hush")
    assert code == 1
    assert report["connecting"]["opened"] == 0
    assert report["run"] is None
    (trouble,) = report["troubles"]
    assert (trouble["kind"], trouble["code"], trouble["count"]) == ("disconnect", 3500, 20)
    assert trouble["meaning"].startswith("The token can never work")
    assert "hush" not in json.dumps(report)


def test_refused_publishing(tmp_path: Path) -> None:
    """The error comes with its code and meaning, and counts as failure."""
    config = OPEN_CONFIG.replace("allow_publish_for_subscriber = true", "").replace(
        "allow_publish_for_anonymous = true", ""
    )
    with ServerProcess(tmp_path, config) as server:
        code, report = bench(server.websocket, "--warm-up", "0")
    assert code == 1
    assert [(each["kind"], each["code"]) for each in report["run"]["troubles"]] == [("error", 103)]
    assert report["run"]["missing"] == 1000


def test_nobody_is_there(server: ServerProcess) -> None:
    """Neither a server nor the right path: said at once."""
    code, report = bench("ws://127.0.0.1:9")
    assert code == 1
    assert report["troubles"][0]["kind"] == "connect"
    assert "refused" in report["troubles"][0]["reason"].lower()
    code, report = bench(f"{server.websocket}/nowhere")
    assert code == 1
    assert report["troubles"][0]["code"] == 404
    assert report["failure"] == "20 of 20 connections did not get in"


def test_a_server_that_dies(tmp_path: Path) -> None:
    """All connections are reported as lost, with the code for it, long before the test would have been over."""
    long = ("--connections", "20", "--duration", "10m", "--processes", "2", "--json")
    with ServerProcess(tmp_path, OPEN_CONFIG) as server, started(server.websocket, *long) as process:
        wait_for_publishing(server)
        began_s = time.monotonic()
        server.stop(signal.SIGKILL)
        code, stdout, stderr = end(process)
    assert time.monotonic() - began_s < 20
    assert (code, stderr) == (1, "")
    report: Any = json.loads(stdout)
    troubles = report["troubles"] + report["run"]["troubles"]
    assert len(troubles) == 1
    trouble = troubles[0]
    assert (trouble["kind"], trouble["code"], trouble["count"]) == ("disconnect", 1006, 20)
    assert "without a close frame" in trouble["meaning"]
    assert "20 connections were cut off" in report["failure"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(server: ServerProcess, number: signal.Signals) -> None:
    """What was measured so far is reported, nothing is missing, and the exit code tells."""
    long = ("--connections", "20", "--duration", "10m", "--warm-up", "0", "--json")
    with started(server.websocket, *long) as process:
        wait_for_publishing(server)
        process.send_signal(number)
        code, stdout, stderr = end(process)
    report = json.loads(stdout)
    assert (code, stderr, report["interrupted"]) == (130, "", True)
    assert report["run"]["sent"] > 0
    assert report["run"]["missing"] == report["run"]["unsent"] == 0


def test_search(server: ServerProcess) -> None:
    """It ends, with a rate that held and one that did not; a bound that nothing can hold ends it, too."""
    options = ("--search", "--duration", "300ms", "--warm-up", "0")
    code, report = bench(server.websocket, *options, "--rate", "2000/s", "--p99", "40ms", "--connections", "50")
    tried = [step["rate"] for step in report["steps"]]
    assert code in (0, 1, 3), report
    assert report["highest_rate"] in (0, *tried)
    assert max(tried) > report["highest_rate"]
    code, report = bench(server.websocket, *options, "--rate", "4", "--p99", "0.001ms")
    assert code in (1, 3), report
    assert report["highest_rate"] == 0


def test_the_table(server: ServerProcess) -> None:
    """Without --json there is a table for people, on standard output alone, and no bar where there is no terminal."""
    options = ("--connections", "5", "--rate", "20/s", "--duration", "500ms", "--warm-up", "0")
    with started(server.websocket, *options) as process:
        code, stdout, stderr = end(process)
    assert code in WHOLE
    assert stderr == ""
    assert "50 of 50: 0 missing" in stdout
    assert "everything arrived, once and in order" in stdout


def publications(server: ServerProcess) -> float:
    """How many the server has fanned out so far."""
    text = httpx.get(f"{server.http}/metrics", timeout=DEADLINE_S).text
    return sum(map(float, re.findall(r"^beaconfire_publications_total{.*} (\S+)$", text, re.M)))


def wait_for_publishing(server: ServerProcess) -> None:
    """Until messages are under way: all connections are in then."""
    before = publications(server)
    end_s = time.monotonic() + DEADLINE_S
    while publications(server) == before:
        assert time.monotonic() < end_s, "nothing was published"
        time.sleep(0.02)
