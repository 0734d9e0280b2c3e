"""Django Channels with its Redis channel layer, and its own Redis."""

from __future__ import annotations

from pathlib import Path

from bench.peers.base import Running, describe
from bench.peers.installation import debian_package
from bench.peers.python import UVICORN, PythonPeer
from bench.peers.text import PROTOCOLS

REDIS = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--logfile", "/dev/null"]
"""A Redis that writes nothing to disk: a channel layer stores nothing permanently."""


class DjangoChannels(PythonPeer):
    """Served by uvicorn, which the documentation of Channels names besides Daphne. Parts: "server" and "redis"."""

    def __init__(self) -> None:
        packages = ["channels", "channels-redis", "uvicorn"]
        super().__init__("channels", packages, Path(__file__).with_name("app.py"), PROTOCOLS, UVICORN)

    @property
    def configuration(self) -> str:
        redis = " ".join(word or "''" for word in REDIS)
        return describe(f"{redis} --port REDIS_PORT") + "\n" + super().configuration

    def install(self) -> None:
        debian_package("redis-server", "redis-server")
        super().install()

    def start(self) -> Running:
        running = Running()
        port = running.hold_port()
        running.launch([*REDIS, "--port", str(port)], part="redis", port=port)
        return self.launch(running, {"REDIS_URL": f"redis://127.0.0.1:{port}"})
