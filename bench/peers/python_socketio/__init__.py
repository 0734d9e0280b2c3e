"""python-socketio, Socket.IO in Python."""

from __future__ import annotations

from pathlib import Path

from bench.peers.python import UVICORN, PythonPeer
from bench.peers.socketio import DIALECTS


class PythonSocketIo(PythonPeer):
    """Under uvicorn, in-memory manager, WebSocket alone."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("app.py")
        super().__init__("python-socketio", ["python-socketio", "uvicorn"], program, DIALECTS, UVICORN)
