"""What identifies one node."""

from __future__ import annotations

from msgspec import Struct


class NodeIdentity(Struct, frozen=True):
    """`uid` is unique for each start of a node, `name` is for people, and `version` is Beaconfire's."""

    uid: str
    name: str
    version: str

    @property
    def product(self) -> str:
        """The server's name and version, as clients are told."""
        return f"Beaconfire {self.version}"
