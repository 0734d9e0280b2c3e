"""The measurement of compression: its messages, and a small complete run."""

from __future__ import annotations

import json
from random import Random

import pytest

from bench.deflate import __main__ as deflate
from bench.deflate.content import order


@pytest.mark.parametrize("size", [500, 2000])
def test_messages_have_the_requested_size(size: int) -> None:
    """Or slightly more. All messages differ, and the same seed gives the same messages."""
    random = Random(1)
    messages = [json.dumps(order(random, size), separators=(",", ":"), ensure_ascii=False) for _ in range(50)]
    assert len(set(messages)) == 50
    assert all(size <= len(message.encode()) < size + 120 for message in messages)
    assert json.loads(messages[0]) == order(Random(1), size)


@pytest.mark.parametrize("distribution", ["one room", "a room each"])
def test_small_run(distribution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every delivery is counted, and compression reduces its bytes."""
    monkeypatch.setattr(deflate, "SUBSCRIBERS", 10)
    plain, compressed = (deflate.measure(distribution, 2000, level, 5) for level in (0, 1))
    assert (plain.compressed, compressed.compressed) == (0, 1)
    assert 2000 < plain.bytes < 2500
    assert compressed.bytes < plain.bytes / 2
