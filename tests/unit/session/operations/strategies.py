"""Helpers for tests of filters, deltas and conflation."""

from __future__ import annotations

import json
from typing import Any

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from tests.unit.kit import HarnessClient, NodeHarness
from tests.unit.patching import apply

WANTED = {"key": "kind", "cmp": "eq", "val": "wanted"}


FOSSIL = {"delta": "fossil"}


def with_strategy(**options: Any) -> ChannelOptions:
    """A namespace that allows every strategy and recovery."""
    return ChannelOptions(
        **{
            "allow_subscribe_for_client": True,
            "allow_publish_for_client": True,
            "allow_history_for_client": True,
            "history_size": 10,
            "history_ttl": Seconds(300),
            "force_recovery": True,
            "allow_tags_filter": True,
            "allowed_delta_types": ["fossil"],
            "delta_publish": True,
            **options,
        }
    )


def pushed(client: HarnessClient) -> list[dict[str, Any]]:
    return [push["pub"] for push in client.receive_pushes()]


def publish(harness: NodeHarness, *kinds: str) -> None:
    for kind in kinds:
        harness.publish("news", kind, tags={"kind": kind})


class DeltaDecoder:
    """Applies the patches of one subscription, as an SDK does."""

    def __init__(self) -> None:
        self.base = b""
        self.patched: list[bool] = []

    def decode(self, publications: list[dict[str, Any]]) -> list[Any]:
        """The data of each publication. All data must be JSON strings."""
        data = []
        for publication in publications:
            data_text = publication["data"].encode()
            self.patched.append(publication.get("delta", False))
            self.base = apply(self.base, data_text) if self.patched[-1] else data_text
            data.append(json.loads(self.base))
        return data


def data_and_left_out(publications: list[dict[str, Any]]) -> list[tuple[Any, int]]:
    return [(publication["data"], publication.get("conflated", 0)) for publication in publications]
