"""The starter file that `beaconfire config init` prints. Its comments are the descriptions of the settings."""

from __future__ import annotations

import textwrap
from typing import Any

from beaconfire.base.units import Seconds
from beaconfire.config import TABLE
from beaconfire.config.values import to_literal

_COMMENT_WIDTH = 88


def starter_config(hmac_secret: str, api_key: str) -> str:
    """Returns a TOML file that works unchanged: tokens, one API key, channels with presence, history and recovery."""
    blocks = [
        "# Beaconfire configuration. `beaconfire config doc` explains every option,\n"
        "# `beaconfire config check FILE` checks this file, `beaconfire serve --config FILE` starts the server.",
        _format_table("server", {"host": "127.0.0.1", "port": 8000}),
        _format_table("client", {"allowed_origins": ["http://localhost:8000"], "allow_anonymous": False}),
        _format_table("token", {"hmac_secret": hmac_secret}),
        _format_table("api", {"keys": [api_key]}),
        _format_table("engine", {"type": "sqlite", "path": "beaconfire.db"}),
        _format_table("channel", _CHANNEL),
        _commented_out_namespace(),
    ]
    return "\n\n".join(blocks) + "\n"


_CHANNEL: dict[str, Any] = {
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "history_size": 100,
    "history_ttl": Seconds(3600),
    "durability": "disk",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_presence_for_subscriber": True,
    "allow_history_for_subscriber": True,
}
_NEWS: dict[str, Any] = {
    "history_size": 1,
    "history_ttl": Seconds(86400),
    "durability": "disk",
    "force_recovery": True,
    "force_recovery_mode": "cache",
    "auto_cache_recover": True,
    "allow_subscribe_for_client": True,
}


def _format_table(name: str, values: dict[str, Any]) -> str:
    lines = [*_format_comment(TABLE.sections[name].description), f"[{name}]"]
    for option, value in values.items():
        setting = TABLE.find(f"{name}.{option}")
        assert setting is not None, f"{name}.{option}"
        lines += [*_format_comment(setting.description), f"{option} = {to_literal(value)}"]
    return "\n".join(lines)


def _commented_out_namespace() -> str:
    lines = ["# A namespace has its own options. This one applies to channels like news:sport.", "# [namespaces.news]"]
    return "\n".join([*lines, *(f"# {option} = {to_literal(value)}" for option, value in _NEWS.items())])


def _format_comment(text: str) -> list[str]:
    return textwrap.wrap(text, _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ")
