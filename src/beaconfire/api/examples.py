"""An example of each method: a request and its response. The documentation shows them, and tests check them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_CLIENT = "6f1d0cb1-2c1f-4f4e-9f59-3c2b1a0d9e8f"
_OTHER_CLIENT = "0b7c9a52-8b1e-4f0c-a1d3-5e6f7a8b9c0d"
_POSITION = {"offset": 7, "epoch": "kQzVbRtL"}
_RECEIPT = {**_POSITION, "durability": "memory"}
_TOTALS = {"channels": 1200, "publications": 3600, "hash": "5f0c2d1e9b8a7f6e5d4c3b2a19081726"}
_MIGRATION = {
    "old": "memory",
    "new": "sqlite",
    "phase": "following",
    "channels": 1200,
    "total": 1200,
    "waiting": 0,
    "read_percent": 0.0,
    "verification": 1,
    "verified": {"number": 1, "old": _TOTALS, "new": _TOTALS, "different": 0},
}


class Example(NamedTuple):
    """`response` is the complete body of the response."""

    request: dict[str, Any]
    response: dict[str, Any]


EXAMPLES: Mapping[str, Example] = {
    "publish": Example(
        {"channel": "chat", "data": {"text": "hello"}, "idempotency_key": "order-1234-paid"}, {"result": _RECEIPT}
    ),
    "broadcast": Example(
        {"channels": ["chat", "news", "nowhere:x"], "data": {"text": "maintenance at noon"}},
        {
            "result": {
                "responses": [
                    {"result": _RECEIPT},
                    {"result": {}},
                    {
                        "error": {
                            "code": 102,
                            "message": "unknown channel",
                            "detail": "channel 'nowhere:x': no namespace 'nowhere' is configured",
                        }
                    },
                ]
            }
        },
    ),
    "subscribe": Example(
        {
            "user": "42",
            "channel": "chat",
            "data": {"greeting": "welcome"},
            "recover_since": {"offset": 5, "epoch": "kQzVbRtL"},
            "override": {"join_leave": {"value": False}},
        },
        {"result": {}},
    ),
    "unsubscribe": Example({"user": "42", "channel": "chat"}, {"result": {}}),
    "disconnect": Example(
        {"user": "42", "disconnect": {"code": 4500, "reason": "account closed"}, "whitelist": [_OTHER_CLIENT]},
        {"result": {}},
    ),
    "refresh": Example({"user": "42", "expire_at": 1893456000}, {"result": {}}),
    "revoke": Example({"user": "42", "channel": "chat"}, {"result": {}}),
    "send": Example({"user": "42", "data": {"notice": "maintenance at 22:00"}}, {"result": {}}),
    "presence": Example(
        {"channel": "chat"},
        {"result": {"presence": {_CLIENT: {"user": "42", "client": _CLIENT, "conn_info": {"name": "Ann"}}}}},
    ),
    "presence_stats": Example({"channel": "chat"}, {"result": {"num_clients": 3, "num_users": 2}}),
    "history": Example(
        {"channel": "chat", "limit": 2, "since": {"offset": 5, "epoch": "kQzVbRtL"}},
        {
            "result": {
                "publications": [
                    {"data": {"text": "hi"}, "offset": 6, "info": {"user": "42", "client": _CLIENT}},
                    {"data": {"text": "hello"}, "offset": 7, "tags": {"lang": "en"}},
                ],
                "epoch": "kQzVbRtL",
                "offset": 7,
            }
        },
    ),
    "history_remove": Example({"channel": "chat"}, {"result": {}}),
    "channels": Example({"pattern": "chat*"}, {"result": {"channels": {"chat": {"num_clients": 3}}}}),
    "connections": Example(
        {"channel": "chat", "limit": 100},
        {
            "result": {
                "connections": {
                    _CLIENT: {
                        "user": "42",
                        "transport": "websocket",
                        "protocol": "centrifuge-json",
                        "channels": ["chat"],
                        "connected_at_ms": 1767225600000,
                        "app_name": "js",
                    }
                }
            }
        },
    ),
    "info": Example(
        {},
        {
            "result": {
                "nodes": [
                    {
                        "uid": "b9b1c2d3-1f2e-4d3c-8b7a-6f5e4d3c2b1a",
                        "name": "web-1_8000",
                        "version": "0.1.0",
                        "num_clients": 3,
                        "num_users": 2,
                        "num_channels": 1,
                        "num_subs": 3,
                        "uptime": 3600,
                    }
                ]
            }
        },
    ),
    "migration": Example({}, {"result": _MIGRATION}),
    "migration_read": Example({"percent": 25}, {"result": {**_MIGRATION, "read_percent": 25.0}}),
    "migration_verify": Example({}, {"result": {**_MIGRATION, "phase": "verifying", "channels": 0, "verification": 2}}),
    "batch": Example(
        {
            "commands": [
                {"publish": {"channel": "chat", "data": {"text": "hello"}}},
                {"presence_stats": {"channel": "chat"}},
                {"history_remove": {"channel": "chat"}},
            ],
            "parallel": False,
        },
        {
            "replies": [
                {"publish": _POSITION},
                {"presence_stats": {"num_clients": 3, "num_users": 2}},
                {"history_remove": {}},
            ]
        },
    ),
    "rpc": Example(
        {"method": "getBalance", "params": {"user": "42"}},
        {
            "error": {
                "code": 104,
                "message": "method not found",
                "detail": "no RPC method 'getBalance': this server has none",
            }
        },
    ),
}
"""By method, in the order of the table of methods."""
