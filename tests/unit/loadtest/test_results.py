"""Frames are parsed once, runs do not mix, and text from the server is made safe for a terminal."""

from __future__ import annotations

from beaconfire.loadtest.failures import FailureKind, find_meaning
from beaconfire.loadtest.messages import JSON, encode_data
from beaconfire.loadtest.results import FAILURES_MAX, Delivery, Results
from beaconfire.loadtest.sequence import DeliveryStatus


def make_results(channels: int = 1) -> Results:
    return Results(JSON, channels, lambda: 0)


def push(due_ns: int, message: int) -> bytes:
    return b'{"push":{"channel":"c","pub":{"data":%s}}}' % encode_data(due_ns, message, 64)


def test_equal_frames_are_parsed_once() -> None:
    """The same bytes for another subscriber are not parsed again; different bytes are. Publish results are left out."""
    results = make_results(channels=10)
    frame = push(1, 42) + b'\n{"id":3,"publish":{}}\n{"id":4,"error":{"code":103}}'
    first = results.parse_frame(frame)
    assert first.deliveries == [Delivery(channel=2, message=4, due_ns=1)]
    assert first.others == [b'{"id":4,"error":{"code":103}}']
    assert results.parse_frame(bytes(bytearray(frame))) is first
    assert results.parse_frame(push(1, 43)) is not first


def test_messages_of_an_earlier_run_are_not_counted() -> None:
    """Messages that were due before the start of the run are left out, even if their frame is the last parsed one."""
    results = make_results()
    assert len(results.parse_frame(push(99, 1)).deliveries) == 1
    results.start_run(100)
    assert results.parse_frame(push(99, 1)).deliveries == []
    assert len(results.parse_frame(push(100, 0)).deliveries) == 1


def test_counts() -> None:
    """Reordered messages count as delivered; duplicates are only counted as duplicates."""
    results = make_results()
    for status in (DeliveryStatus.NEW, DeliveryStatus.REORDERED, DeliveryStatus.DUPLICATE):
        results.count(status, 10, 30)
    assert (results.delivered, results.reordered, results.duplicated, results.latency.count) == (2, 1, 1, 2)
    assert results.last_ns == 30


def test_failures() -> None:
    """Counted by kind, code and reason. Control characters are replaced, long reasons are cut, and the number of
    different failures is limited."""
    results = make_results()
    results.add_failure(FailureKind.DISCONNECT, 3008, "slow")
    results.add_failure(FailureKind.DISCONNECT, 3008, "slow")
    results.add_failure(FailureKind.DISCONNECT, 4000, "\x1b[31m" + "x" * 1000)
    slow, unsafe = results.take_failures()
    assert (slow.code, slow.count) == (3008, 2)
    assert unsafe.reason.startswith("?[31mxxx")
    assert len(unsafe.reason) == 100
    assert results.take_failures() == ()
    for number in range(1000):
        results.add_failure(FailureKind.ERROR, number, "")
    taken = results.take_failures()
    assert len(taken) == FAILURES_MAX + 1
    assert sum(failure.count for failure in taken) == 1000


def test_meanings_of_codes() -> None:
    """Known codes have a sentence. The meaning of a code depends on the kind of failure."""
    assert "slowly" in find_meaning(FailureKind.DISCONNECT, 3008)
    assert "without a close frame" in find_meaning(FailureKind.DISCONNECT, 1006)
    assert "limit" in find_meaning(FailureKind.CONNECT, 503)
    assert find_meaning(FailureKind.ERROR, 103)
    assert find_meaning(FailureKind.ERROR, 99999) == ""
