"""Base class of all sections of the configuration."""

from __future__ import annotations

from msgspec import Struct

SECRET = {"secret": True}
"""Value of `Meta(extra=…)` for an option that holds a secret. Errors, logs and `config show` never contain it."""


class Options(Struct, frozen=True, kw_only=True):
    """Options of one part of the server, declared next to the code that reads them.

    Every field has a default, and an annotation whose `Meta` holds its description and its bounds. `beaconfire.config`
    applies the bounds when it reads a value; the constructor does not.
    """
