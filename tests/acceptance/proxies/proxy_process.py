"""Runs nginx and HAProxy in front of a server, with the configuration of docs/how-to/deploy.md."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

from bench.processes import HeldPort
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "how-to" / "deploy.md"
START_DEADLINE_S = 10.0
STOP_DEADLINE_S = 10.0

_TLS = r"    (?:bind|listen) (?:\*:|:)?443 ssl.*\n(?:    server_name .*\n)?(?:    ssl_certificate.*\n)*"
"""The lines of the configuration for the proxy's address and TLS. The tests replace these lines."""


class ProxyProcess:
    """A proxy on a free port of the loopback interface, as one child process without workers.

    Args:
        name: `nginx` or `haproxy`.
        server_port: the port of the Beaconfire server.
        folder: for the configuration and the log.
        every_upgrade: the proxy forwards every `Upgrade` header, as many configurations in use do. Otherwise the
            configuration is that of the page.
    """

    def __init__(self, name: str, server_port: int, folder: Path, every_upgrade: bool = False) -> None:
        self._held = HeldPort()
        self.port = self._held.number
        self._folder = folder
        self._name = name
        configuration = _read_configuration(name, server_port, self.port)
        if every_upgrade:
            configuration = _forward_every_upgrade(name, configuration)
        self._file = folder / f"{name}.conf"
        self._file.write_text(_complete(name, configuration, folder))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ProxyProcess:
        program = shutil.which(self._name, path=os.environ["PATH"] + ":/usr/sbin")
        assert program is not None, f"{self._name} is missing; run: scripts/services"
        command = {
            "nginx": [program, "-p", str(self._folder), "-e", "nginx.log", "-c", str(self._file)],
            "haproxy": [program, "-db", "-f", str(self._file)],
        }[self._name]
        with open(self._folder / "output", "wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            self._wait_listening()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._held.close()

    def _wait_listening(self) -> None:
        assert self._process is not None
        end_s = time.monotonic() + START_DEADLINE_S
        while not _accepts(self.port):
            output = (self._folder / "output").read_text()
            assert self._process.poll() is None, f"{self._name} did not start: {output}"
            assert time.monotonic() < end_s, f"{self._name} does not accept connections: {output}"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_DEADLINE_S)
        self._process = None


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _read_configuration(name: str, server_port: int, port: int) -> str:
    """The configuration of the page, with the ports of the test and without TLS."""
    (text,) = (block.text for block in blocks(PAGE) if block.language == name)
    address = f"    listen 127.0.0.1:{port};\n" if name == "nginx" else f"    bind 127.0.0.1:{port}\n"
    text = _replace(text, _TLS, address)
    return _replace(text, r"127\.0\.0\.1:8000", f"127.0.0.1:{server_port}")


def _forward_every_upgrade(name: str, text: str) -> str:
    """Changes the configuration so that the proxy forwards every `Upgrade` header."""
    if name == "nginx":
        return _replace(
            text, r"map \$http_upgrade \$upgrade \{[^}]*\}", "map $http_upgrade $upgrade { default $http_upgrade; }"
        )
    return _replace(text, r"    http-request del-header Upgrade .*\n", "")


def _replace(text: str, pattern: str, replacement: str) -> str:
    """Replaces the only match of the pattern. Raises AssertionError if the page has no match or several matches."""
    changed, count = re.subn(pattern, replacement.replace("\\", "\\\\"), text)
    assert count == 1, f"{PAGE.name} has {count} matches of {pattern}"
    return changed


def _complete(name: str, text: str, folder: Path) -> str:
    """Adds the parts that the main configuration file of a distribution contains.

    These files enable `sendfile`: nginx then sends a body that it stored on disk in another segment than the head.
    """
    if name == "haproxy":
        return text
    paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"    {path}_temp_path {folder / path};\n" for path in paths)
    return (
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {}\n"
        f"http {{\n    access_log off;\n    sendfile on;\n{temporary}{text}}}\n"
    )
