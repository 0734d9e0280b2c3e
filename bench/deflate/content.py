"""Realistic messages: JSON with repeated names and varying values."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

_STATES = ("received", "packed", "on its way", "delivered")
_GOODS = ("Cotton shirt, blue", "Running shoes", "Desk lamp with dimmer", "Water bottle 0.75 l", "Travel guide Iceland")
_PLACES = ("Hamburg", "Utrecht", "Kraków", "Lyon", "Bologna", "Göteborg")


def order(random: Random, size: int) -> dict[str, Any]:
    """An update of an order, with enough lines for `size` bytes of JSON or a few more."""
    second = random.randrange(86_400)
    update: dict[str, Any] = {
        "type": "order.updated",
        "id": f"{random.getrandbits(64):016x}",
        "at": f"2026-03-07T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{random.randrange(1000):03}Z",
        "state": random.choice(_STATES),
        "customer": {"id": random.randrange(10**7), "city": random.choice(_PLACES), "priority": random.random() < 0.2},
        "total": {"amount": random.randrange(10**5) / 100, "currency": "EUR"},
        "lines": [],
    }
    while len(msgspec.json.encode(update)) < size:
        update["lines"].append(
            {
                "sku": f"{random.randrange(10**8):08}",
                "name": random.choice(_GOODS),
                "quantity": random.randrange(1, 9),
                "price": random.randrange(10**4) / 100,
                "state": random.choice(_STATES),
            }
        )
    return update
