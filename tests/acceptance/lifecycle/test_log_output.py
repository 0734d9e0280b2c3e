"""A log that cannot be written, or that nobody reads, must not stop the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.processes import HeldPort
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import PERMISSIVE_CONFIG, START_DEADLINE_S

CLIENTS = 300
"""The log lines of so many clients fill a pipe (64 KiB) several times."""


@contextmanager
def server(folder: Path, stderr: int | None) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server that logs to this descriptor (None: standard error is closed), and the port it listens on."""
    config = folder / "beaconfire.toml"
    config.write_text(PERMISSIVE_CONFIG)
    with HeldPort() as port:
        settings = ["--set", f"server.port={port.number}", "--set", "log.level=debug"]
        command = [str(Path(sys.executable).with_name("beaconfire")), "serve", "--config", str(config), *settings]
        if stderr is None:
            command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *command]
        process = subprocess.Popen(command, stderr=stderr)
        try:
            wait_ready(port.number)
            yield process, port.number
        finally:
            process.kill()
            process.wait()


def wait_ready(port: int) -> None:
    end_s = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as response:
                assert response.status == 200
                return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < end_s, "the server did not start"
            time.sleep(0.05)


def connect_and_publish(port: int) -> None:
    """300 clients, one after the other, connect, publish and disconnect. One listener receives all publications."""

    async def scenario() -> None:
        async with JSONClient.connect(port, channels=["bare:a"]) as listener:
            for number in range(CLIENTS):
                async with JSONClient.connect(port) as client:
                    await client.publish("bare:a", number)
            await listener.publish("bare:a", "end")
            assert listener.received_data("bare:a")[:CLIENTS] == list(range(CLIENTS))

    run_scenario(scenario())


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(20)


def test_a_full_disk_does_not_stop_the_server(tmp_path: Path) -> None:
    """Standard error is a device without space."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with server(tmp_path, full) as (process, port):
            connect_and_publish(port)
            assert stop(process) == 0
    finally:
        os.close(full)


def test_a_closed_standard_error_does_not_stop_the_server(tmp_path: Path) -> None:
    """Some daemons start their children without standard error."""
    with server(tmp_path, None) as (process, port):
        connect_and_publish(port)
        assert stop(process) == 0


def test_a_broken_pipe_does_not_stop_the_server(tmp_path: Path) -> None:
    """The reader has closed the pipe."""
    reader, writer = os.pipe()
    with server(tmp_path, writer) as (process, port):
        os.close(writer)
        os.close(reader)
        connect_and_publish(port)
        assert stop(process) == 0


def test_a_full_pipe_does_not_stop_the_server(tmp_path: Path) -> None:
    """The server keeps working. When the pipe is read again, lines are whole, in order, and the losses are reported."""
    reader, writer = os.pipe()
    try:
        with server(tmp_path, writer) as (process, port):
            os.close(writer)
            for _ in range(4):
                connect_and_publish(port)
            text = bytearray()
            reading = threading.Thread(target=read_all, args=(reader, text))
            reading.start()
            assert stop(process) == 0
            reading.join()
    finally:
        os.close(reader)
    lines = [json.loads(line) for line in text.splitlines()]
    ended = sum(line["action"] == "session_ended" for line in lines)
    assert CLIENTS < ended <= 4 * (CLIENTS + 1)
    moments = [line["timestamp"] for line in lines if line["action"] != "log_lines_lost"]
    assert moments == sorted(moments)
    lost = sum(line["lines"] for line in lines if line["action"] == "log_lines_lost")
    connected = sum(line["action"] == "session_connected" for line in lines)
    assert lost > 0
    assert ended + connected + lost > 2 * 4 * CLIENTS


def read_all(descriptor: int, text: bytearray) -> None:
    while data := os.read(descriptor, 65536):
        text += data
