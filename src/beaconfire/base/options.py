"""The base of all sections of the configuration."""

from __future__ import annotations

from msgspec import Struct

SECRET = {"secret": True}
"""The `extra` of an option whose value is never shown: not in errors, not in `beaconfire config show`, not in logs."""


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections of the configuration."""
