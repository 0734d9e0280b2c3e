"""The names of keys: unique for each channel, and in one slot."""

from __future__ import annotations

import itertools

from beaconfire.engines.redis.keys import Keys, slot_of
from beaconfire.engines.redis.nonces import Nonces

CHANNELS = ("a", "b", "a}", "}", "{", "{}", "a%", "a%7D", "%", "", "control", "a}:m", "chat:ä", "a:b}:s")


def names_of(keys: Keys, channel: str) -> tuple[bytes, ...]:
    """The names of one channel, without those of idempotency keys."""
    return (*keys.channel(channel), *keys.presence(channel), keys.producers(channel))


def test_all_names_of_a_channel_have_one_slot() -> None:
    """Whatever is in the name of the channel."""
    keys = Keys("p")
    for channel in CHANNELS:
        names = (*names_of(keys, channel), keys.receipt(channel, "k"), keys.receipt(channel, "k}"))
        assert len({slot_of(name) for name in names}) == 1, channel


def test_no_two_names_are_equal() -> None:
    """Neither of channels, nor of anything else."""
    keys = Keys("p")
    names = [name for channel in CHANNELS for name in names_of(keys, channel)]
    names += [keys.receipt(channel, key) for channel, key in itertools.product(CHANNELS, ("k", "m", "s", ":m", "x}:m"))]
    names += [keys.control, keys.nodes, keys.node("n"), keys.era("t"), keys.mark("t"), keys.probe("t", "n")]
    assert len(set(names)) == len(names)
    assert keys.announcement("a") == keys.channel("a").announcement == b"p:{a}"


def test_slots_are_those_of_the_specification() -> None:
    """CRC16 of 123456789 is 0x31C3; only a hash tag that is not empty counts."""
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"x{123456789}y{z}") == 0x31C3
    assert slot_of(b"{}123") != slot_of(b"123")
    assert slot_of(b"{123") != slot_of(b"123")


def test_nonces_do_not_repeat() -> None:
    """Each has twelve letters and digits. After very many, the prefix changes."""
    prefixes = iter(["abcdefgh", "ijklmnop"])
    nonces = Nonces(lambda: next(prefixes))
    assert [nonces.new(), nonces.new_text()] == [b"abcdef000000", "abcdef000001"]
    nonces._next = 16**6 - 1
    assert [nonces.new(), nonces.new()] == [b"abcdefffffff", b"ijklmn000000"]
