"""Frames are read once, runs do not mix, and strangers' words are tamed."""

from __future__ import annotations

from beaconfire.loadtest.codes import Kind, meaning
from beaconfire.loadtest.dialect import dialect, mark
from beaconfire.loadtest.ledger import TROUBLES_MAX, Ledger, Mark
from beaconfire.loadtest.tally import Arrival


def ledger(channels: int = 1) -> Ledger:
    return Ledger(dialect(protobuf=False), channels, lambda: 0)


def push(due_ns: int, message: int) -> bytes:
    return b'{"push":{"channel":"c","pub":{"data":%s}}}' % mark(due_ns, message, 64)


def test_a_frame_is_read_once() -> None:
    """The same bytes to another subscriber are not looked at again; other bytes are."""
    book = ledger(channels=10)
    first = book.read(push(1, 42) + b'\n{"id":3,"publish":{}}')
    assert first.marks == [Mark(channel=2, message=4, due_ns=1)]
    assert first.others == [b'{"id":3,"publish":{}}']
    assert book.read(push(1, 42) + b'\n{"id":3,"publish":{}}') is first
    assert book.read(push(1, 43)) is not first


def test_an_earlier_run_does_not_count() -> None:
    """What was due before this run began is left out, even if its frame is remembered."""
    book = ledger()
    assert len(book.read(push(99, 1)).marks) == 1
    book.begin(100)
    assert book.read(push(99, 1)).marks == []
    assert len(book.read(push(100, 0)).marks) == 1


def test_counts() -> None:
    """Reordered ones have arrived; duplicates are counted and otherwise left out."""
    book = ledger()
    for how in (Arrival.NEW, Arrival.REORDERED, Arrival.DUPLICATE):
        book.count(how, 10, 30)
    assert (book.arrived, book.reordered, book.duplicated, book.latency.count) == (2, 1, 1, 2)
    assert book.last_ns == 30


def test_troubles() -> None:
    """Counted by kind, code and reason; control characters and long texts are cut, and so are endless inventions."""
    book = ledger()
    book.trouble(Kind.DISCONNECT, 3008, "slow")
    book.trouble(Kind.DISCONNECT, 3008, "slow")
    book.trouble(Kind.DISCONNECT, 4000, "\x1b[31m" + "x" * 1000)
    slow, strange = book.take_troubles()
    assert (slow.code, slow.count) == (3008, 2)
    assert strange.reason.startswith("?[31mxxx")
    assert len(strange.reason) == 100
    assert book.take_troubles() == ()
    for number in range(1000):
        book.trouble(Kind.ERROR, number, "")
    taken = book.take_troubles()
    assert len(taken) == TROUBLES_MAX + 1
    assert sum(trouble.count for trouble in taken) == 1000


def test_meanings() -> None:
    """Known numbers have a sentence; the same number may mean different things."""
    assert meaning(Kind.DISCONNECT, 3008) == "The client reads more slowly than data for it is published."
    assert "without a close frame" in meaning(Kind.DISCONNECT, 1006)
    assert "full" in meaning(Kind.CONNECT, 503)
    assert meaning(Kind.ERROR, 103)
    assert meaning(Kind.ERROR, 99999) == ""
