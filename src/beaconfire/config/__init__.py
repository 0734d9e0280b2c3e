"""The configuration: read from a file, environment variables and flags, checked as a whole, and documented.

Every option is declared once, next to the code that reads it (`*/options.py`). `sections` combines these structs,
`table` lists every setting, `loading` reads the sources, and `checks` finds options that contradict each other.
"""

from __future__ import annotations

from beaconfire.config.loading import ConfigError, Loaded, Problem, load, load_with_origins
from beaconfire.config.sections import TABLE, Config, as_document, secret_values

__all__ = [
    "TABLE",
    "Config",
    "ConfigError",
    "Loaded",
    "Problem",
    "as_document",
    "load",
    "load_with_origins",
    "secret_values",
]
