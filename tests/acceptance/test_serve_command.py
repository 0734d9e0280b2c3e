"""Output and exit codes of `beaconfire serve`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.server_process import REFERENCE_CONFIG, ServerProcess

BEACONFIRE = str(Path(sys.executable).with_name("beaconfire"))


def clean_environment() -> dict[str, str]:
    """The environment without settings of Beaconfire."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BEACONFIRE_")}


def run_serve(*options: str) -> subprocess.CompletedProcess[str]:
    """Runs `beaconfire serve` with options with which it exits at once."""
    return subprocess.run(
        [BEACONFIRE, "serve", *options],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_port_in_use_exits_with_1_and_names_the_port(tmp_path: Path) -> None:
    """The error output of the second server on a port has the reason and the port."""
    with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
        done = run_serve("--port", str(server.port))
    assert done.returncode == 1
    assert "address already in use" in done.stderr
    assert str(server.port) in done.stderr


def test_terminal_output_has_one_address_per_line() -> None:
    """A terminal gets a table of addresses. A log gets one line instead."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [BEACONFIRE, "serve", "--port", "0", "--set", "server.demo=true"],
        env=clean_environment(),
        stderr=slave,
    )
    os.close(slave)
    output = b""
    try:
        while b"\nlimits" not in output:
            output += os.read(master, 65536)
    finally:
        process.terminate()
        process.wait(20)
        os.close(master)
    lines = output.decode().splitlines()
    (demo,) = (line.split()[1] for line in lines if line.startswith("demo "))
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/", demo), "the real port is shown instead of 0"
    assert not any("server_started" in line for line in lines)


def test_missing_certificate_exits_with_2_and_names_option_and_file() -> None:
    """The server does not start if a file of its configuration does not exist."""
    done = run_serve("--set", "server.tls_cert=/nowhere/cert.pem", "--set", "server.tls_key=/nowhere/key.pem")
    assert done.returncode == 2
    assert "server.tls_cert" in done.stderr
    assert "/nowhere/key.pem" in done.stderr
