"""What a person sees who starts the server, or fails to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.acceptance.server_process import REFERENCE_CONFIG, ServerProcess

BEACONFIRE = str(Path(sys.executable).with_name("beaconfire"))


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """The second server on a port says why it can't run, and exits with 1, as for everything that was tried."""
    with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
        done = subprocess.run(
            [BEACONFIRE, "serve", "--port", str(server.port)],
            env={name: value for name, value in os.environ.items() if not name.startswith("BEACONFIRE_")},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 1
    assert "address already in use" in done.stderr
    assert str(server.port) in done.stderr


def test_a_terminal_gets_addresses_one_per_line() -> None:
    """A person sees what is running at a glance; a log gets one line."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [BEACONFIRE, "serve", "--port", "0", "--set", "server.demo=true"],
        env={name: value for name, value in os.environ.items() if not name.startswith("BEACONFIRE_")},
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while b"\nlimits" not in shown:
            shown += os.read(master, 65536)
    finally:
        process.terminate()
        process.wait(20)
        os.close(master)
    lines = shown.decode().splitlines()
    (demo,) = (line.split()[1] for line in lines if line.startswith("demo "))
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/", demo), "port 0 has become the one it listens on"
    assert not any("server_started" in line for line in lines)


def test_a_missing_certificate_is_named() -> None:
    """Files that are named but not there stop start-up with the option and the path."""
    done = subprocess.run(
        [BEACONFIRE, "serve", "--set", "server.tls_cert=/nowhere/cert.pem", "--set", "server.tls_key=/nowhere/key.pem"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert "server.tls_cert" in done.stderr
    assert "/nowhere/key.pem" in done.stderr


def test_a_websocket_address_in_a_browser_explains_itself(tmp_path: Path) -> None:
    """Plain GET of a WebSocket path is 426, not a puzzling 404."""
    with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
        for path in ("/ws", "/connection/websocket"):
            answer = httpx.get(server.http + path)
            assert answer.status_code == 426
            assert answer.headers["upgrade"] == "websocket"


def test_the_browser_client_is_served(tmp_path: Path) -> None:
    """Every module of it, to pages of any site, and again only if it has changed; nothing else of its folder."""
    with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
        for name in ("beaconfire.js", "transports.js"):
            answer = httpx.get(f"{server.http}/client/{name}")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
            assert answer.headers["access-control-allow-origin"] == "*"
            again = httpx.get(f"{server.http}/client/{name}", headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        for path in ("/client/package.json", "/client/__init__.py", "/client/", "/client"):
            assert httpx.get(server.http + path).status_code == 404, path
        templates = {line["path"] for line in server.log_lines("http_request")}
        assert templates == {"/client/{file}", "other"}


def test_a_missing_page_of_the_demo_is_not_found(tmp_path: Path) -> None:
    """404 and 405 for a visitor's mistakes, in one line of the log each, and nothing outside the folder is served."""
    with ServerProcess(tmp_path, REFERENCE_CONFIG, {"server.demo": "true"}) as server:
        assert httpx.get(server.http + "/demo/style.css").status_code == 200
        for path in ("/demo/nothing.js", "/demo/", "/demo/%2e%2e/app.py", "/demo/..%2fapp.py"):
            assert httpx.get(server.http + path).status_code == 404, path
        assert httpx.post(server.http + "/demo/style.css").status_code == 405
        assert server.stop() == 0
        assert server.log_lines("library_log") == []
