"""The Python library websockets with its own asyncio server."""

from __future__ import annotations

from pathlib import Path

from bench.peers.python import PythonPeer
from bench.peers.text import PROTOCOLS


class PythonWebsockets(PythonPeer):
    """Runs on uvloop and uses broadcast()."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("server.py")
        command = ["python", "{folder}/server.py", "{port}"]
        super().__init__("websockets", ["websockets", "uvloop"], program, PROTOCOLS, command)
