"""Where the server of a test is."""

from __future__ import annotations

from typing import Protocol


class Address(Protocol):
    """Where a server is."""

    @property
    def port(self) -> int: ...

    @property
    def prefix(self) -> str:
        """The path at which the server is mounted: empty, or `/realtime`."""


def base_url(server: Address) -> str:
    return f"http://127.0.0.1:{server.port}{server.prefix}"
