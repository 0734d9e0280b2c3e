"""`beaconfire bench` as a user runs it, against real servers: its report, its exit codes and its end.

On a busy machine the load generator may be the bottleneck (exit code 3). The tests accept this result.
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
from beaconfire.base.errors import INVALID_TOKEN
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

COMPLETE_EXIT_CODES = (0, 3)
"""Exit codes of a run in which all messages were delivered."""
DEADLINE_S = 45.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("bench"), OPEN_CONFIG) as process:
        yield process


@contextmanager
def start_bench(url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the command as a child process. Kills the process at the end of the context."""
    command = [str(Path(sys.executable).with_name("beaconfire")), "bench", url, *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_output(process: subprocess.Popen[str], stdin: str = "") -> tuple[int, str, str]:
    """Waits until the process exits. Returns exit code, standard output and standard error."""
    stdout, stderr = process.communicate(stdin, timeout=DEADLINE_S)
    return process.returncode, stdout, stderr


def run_bench(url: str, *options: str, stdin: str = "") -> tuple[int, Any]:
    """Runs a small load test to its end. Returns the exit code and the report."""
    small = ("--connections", "20", "--rate", "50/s", "--duration", "1s", "--warm-up", "200ms", "--json")
    with start_bench(url, *small, *options) as process:
        code, stdout, stderr = wait_output(process, stdin)
    assert stderr == ""
    return code, json.loads(stdout)


@pytest.mark.parametrize("encoding", [(), ("--protobuf",)], ids=["json", "protobuf"])
@pytest.mark.parametrize("processes", ["1", "3"])
def test_report_has_all_deliveries_and_latencies(
    server: ServerProcess, encoding: tuple[str, ...], processes: str
) -> None:
    """Each connection receives each message, from any process, and latency percentiles are in order."""
    code, report = run_bench(server.websocket, *encoding, "--processes", processes)
    run = report["run"]
    assert code in COMPLETE_EXIT_CODES, report
    assert report["connecting"]["opened"] == 20
    assert (run["sent"], run["expected"], run["delivered"], run["missing"]) == (50, 1000, 1000, 0)
    assert 0 < run["latency"]["p50_ms"] <= run["latency"]["p99_ms"] <= run["latency"]["max_ms"]
    assert run["failures"] == report["failures"] == []


def test_rooms_divide_the_connections_and_channels_do_not(server: ServerProcess) -> None:
    """Each connection joins one of `--rooms`, and subscribes to all of `--channels`."""
    code, report = run_bench(server.websocket, "--rooms", "5", "--payload", "300")
    assert code in COMPLETE_EXIT_CODES, report
    assert report["run"]["delivered"] == 50 * 4
    code, report = run_bench(server.websocket, "--channels", "5", "--processes", "2", "--protobuf")
    assert code in COMPLETE_EXIT_CODES, report
    assert report["run"]["delivered"] == 50 * 20


def test_tokens_are_signed_or_read_from_a_file(tmp_path: Path) -> None:
    """The secret may come from standard input. A wrong secret fails the run, and no secret is in the report."""
    options = ("--prefix", "small:bench")
    file = tmp_path / "tokens"
    file.write_text("\n".join(connection_token(SECRET, user, now_unix_s=time.time()) for user in ("ann", "bob")))
    with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
        for token_options, stdin in (
            (("--token-secret", SECRET), ""),
            (("--token-secret", "-"), SECRET + "\n"),
            (("--token", str(file)), ""),
        ):
            code, report = run_bench(server.websocket, *options, *token_options, stdin=stdin)
            assert code in COMPLETE_EXIT_CODES, report
            assert report["run"]["delivered"] == 1000
        code, report = run_bench(server.websocket, *options, "--token-secret", "wrong-secret")
    assert code == 1
    assert report["connecting"]["opened"] == 0
    assert report["run"] is None
    (failure,) = report["failures"]
    assert (failure["kind"], failure["code"], failure["count"]) == ("disconnect", 3500, 20)
    assert failure["meaning"].startswith(INVALID_TOKEN.meaning)
    assert "wrong-secret" not in json.dumps(report)


def test_refused_publications_fail_the_run(tmp_path: Path) -> None:
    """The report has the error with its code, and the exit code is 1."""
    config = OPEN_CONFIG.replace("allow_publish_for_subscriber = true", "").replace(
        "allow_publish_for_anonymous = true", ""
    )
    with ServerProcess(tmp_path, config) as server:
        code, report = run_bench(server.websocket, "--warm-up", "0")
    assert code == 1
    assert [(each["kind"], each["code"]) for each in report["run"]["failures"]] == [("error", 103)]
    assert report["run"]["missing"] == 1000


def test_failed_connections_fail_the_run(server: ServerProcess) -> None:
    """The report has the reason if no server listens or the path is wrong."""
    code, report = run_bench("ws://127.0.0.1:9")
    assert code == 1
    assert report["failures"][0]["kind"] == "connect"
    assert "refused" in report["failures"][0]["reason"].lower()
    code, report = run_bench(f"{server.websocket}/nowhere")
    assert code == 1
    assert report["failures"][0]["code"] == 404
    assert report["failure"] == "20 of 20 connections could not be opened"


def test_lost_connections_end_the_run(tmp_path: Path) -> None:
    """After the server is killed, the command ends early and reports all connections as lost, with their close code."""
    long = ("--connections", "20", "--duration", "10m", "--processes", "2", "--json")
    with ServerProcess(tmp_path, OPEN_CONFIG) as server, start_bench(server.websocket, *long) as process:
        wait_for_publications(server)
        killed_at_s = time.monotonic()
        server.stop(signal.SIGKILL)
        code, stdout, stderr = wait_output(process)
    assert time.monotonic() - killed_at_s < 20
    assert (code, stderr) == (1, "")
    report: Any = json.loads(stdout)
    failures = report["failures"] + report["run"]["failures"]
    assert len(failures) == 1
    failure = failures[0]
    assert (failure["kind"], failure["code"], failure["count"]) == ("disconnect", 1006, 20)
    assert "without a close frame" in failure["meaning"]
    assert "20 connections were disconnected" in report["failure"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_reports_its_measurements(server: ServerProcess, number: signal.Signals) -> None:
    """After SIGINT or SIGTERM the report has no missing messages, and the exit code is 130."""
    long = ("--connections", "20", "--duration", "10m", "--warm-up", "0", "--json")
    with start_bench(server.websocket, *long) as process:
        wait_for_publications(server)
        process.send_signal(number)
        code, stdout, stderr = wait_output(process)
    report = json.loads(stdout)
    assert (code, stderr, report["interrupted"]) == (130, "", True)
    assert report["run"]["sent"] > 0
    assert report["run"]["missing"] == report["run"]["unsent"] == 0


def test_search_ends_with_the_highest_rate(server: ServerProcess) -> None:
    """The search tries a rate that misses the bound. With a bound that no rate can meet, the highest rate is 0."""
    options = ("--search", "--duration", "300ms", "--warm-up", "0")
    code, report = run_bench(server.websocket, *options, "--rate", "2000/s", "--p99", "40ms", "--connections", "50")
    tried = [step["rate"] for step in report["steps"]]
    assert code in (0, 1, 3), report
    assert report["highest_rate"] in (0, *tried)
    assert max(tried) > report["highest_rate"]
    code, report = run_bench(server.websocket, *options, "--rate", "4", "--p99", "0.001ms")
    assert code in (1, 3), report
    assert report["highest_rate"] == 0


def test_output_without_json_is_a_table(server: ServerProcess) -> None:
    """The table is on standard output. Without a terminal there is no progress bar, so standard error is empty."""
    options = ("--connections", "5", "--rate", "20/s", "--duration", "500ms", "--warm-up", "0")
    with start_bench(server.websocket, *options) as process:
        code, stdout, stderr = wait_output(process)
    assert code in COMPLETE_EXIT_CODES
    assert stderr == ""
    assert "50 of 50: 0 missing" in stdout
    assert "all messages were delivered, once and in order" in stdout


def count_publications(server: ServerProcess) -> float:
    """How many publications the server has fanned out so far."""
    text = httpx.get(f"{server.http}/metrics", timeout=DEADLINE_S).text
    return sum(map(float, re.findall(r"^beaconfire_publications_total{.*} (\S+)$", text, re.M)))


def wait_for_publications(server: ServerProcess) -> None:
    """Waits until the command publishes. All connections are open then."""
    before = count_publications(server)
    end_s = time.monotonic() + DEADLINE_S
    while count_publications(server) == before:
        assert time.monotonic() < end_s, "nothing was published"
        time.sleep(0.02)
