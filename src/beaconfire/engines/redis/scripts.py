"""The Lua scripts, which make each change of a channel one atomic step."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

from msgspec import Struct


class Script(Struct, frozen=True):
    """The source of a script, and the name under which a server knows it once it is loaded: its SHA-1."""

    source: bytes
    sha: bytes


def _load(name: str) -> Script:
    source = files(__package__).joinpath("lua", f"{name}.lua").read_bytes()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


PUBLISH: Final = _load("publish")
PUBLISH_KEYED: Final = _load("publish_keyed")
HISTORY: Final = _load("history")
REMOVE_HISTORY: Final = _load("remove_history")
PRESENCE: Final = _load("presence")
ERA: Final = _load("era")
NODES: Final = _load("nodes")

SCRIPTS: Final = (PUBLISH, PUBLISH_KEYED, HISTORY, REMOVE_HISTORY, PRESENCE, ERA, NODES)
"""Each new connection loads all of them: the server may have lost them."""
