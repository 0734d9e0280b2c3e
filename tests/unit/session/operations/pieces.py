"""Helpers for tests of recoveries in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.session.reply_budget import PUBLICATION_BYTES
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness, settle

TEXT = "x" * 98


PUBLICATION_SIZE = PUBLICATION_BYTES + 100
"""The size of a publication of TEXT."""


ALL_FEATURES = ChannelOptions(
    allow_subscribe_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
    history_size=10,
    history_ttl=Seconds(300),
    force_recovery=True,
    allow_tags_filter=True,
    allowed_delta_types=["fossil"],
)


def run_scenario(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def new_harness(channel: ChannelOptions = RECOVERABLE, pieces_of: int = 2, **options: Any) -> NodeHarness:
    """A harness whose replies have room for this many publications, with seven of them in each of two channels."""
    harness = NodeHarness(channel, reply_max_size=Size(PUBLICATION_SIZE * pieces_of), **options)
    for name in ("news", "sport"):
        harness.publish(name, *[TEXT] * 7)
    return harness


def since(offset: int = 0) -> dict[str, Any]:
    return {"recover": True, "offset": offset, "epoch": "epoch1"}


async def receive_all(client: HarnessClient) -> list[dict[str, Any]]:
    """The messages until no more arrive."""
    found: list[dict[str, Any]] = []
    for _ in range(20):  # more turns than pieces
        await settle()
        found += client.receive()
    return found


def offsets(messages: list[dict[str, Any]], channel: str = "news") -> list[int]:
    """The offsets of the publications that were pushed in the channel. No other pushes may be there."""
    pushes = [message["push"] for message in messages if message.get("push", {}).get("channel") == channel]
    return [push["pub"]["offset"] for push in pushes]
