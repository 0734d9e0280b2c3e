"""python-socketio, Socket.IO in Python."""

from __future__ import annotations

from pathlib import Path

from bench.peers.python import UVICORN, PythonPeer
from bench.peers.socketio import PROTOCOLS


class PythonSocketIo(PythonPeer):
    """Served by uvicorn, in-memory manager, WebSocket only."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("app.py")
        super().__init__("python-socketio", ["python-socketio", "uvicorn"], program, PROTOCOLS, UVICORN)
