"""The load program for WebSocket: what it publishes and when, and what it counts and measures."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from bench.load import MARK, Connection, Load, LoadError
from tests.bench.wire import TEXT, Wire, fragments, frame, mark_of, serve

ACK = b'"ok":{}'
PUBLICATION = b'{"publish":"' + MARK + b'"}'
PUBLISHER = Connection(0, PUBLICATION, [])


@pytest.mark.parametrize("way", ["fragments", "bytes", "together"])
def test_marks_and_acks_are_found_however_they_are_cut(way: str) -> None:
    """In a frame per byte, a packet per byte, or several in one frame: each mark and each ack counts once."""

    def handle(wire: Wire) -> None:
        wire.accept()
        while True:
            payload = wire.read_message()
            copies = b'""ok:{} ' + mark_of(payload) * 2 + ACK + b" and " + mark_of(payload)
            if way == "bytes":
                wire.send_bytes_one_by_one(frame(copies))
            else:
                wire.send(fragments(copies) if way == "fragments" else frame(copies))

    with serve(handle) as port, Load(port, "/", [PUBLISHER], ack=ACK) as load:
        load.connect(0)
        outcome = load.flood(window=2, messages=20, copies=3, acks=True)
    assert (outcome.sent, outcome.arrived, outcome.acked) == (20, 60, 20)
    assert outcome.latency_us.count == 60
    assert 0 < outcome.latency_us.p50 <= outcome.latency_us.p99 <= outcome.latency_us.p999 <= outcome.latency_us.max
    assert outcome.latency_us.max <= outcome.seconds * 1e6
    assert outcome.cpu_s > 0


def test_publishers_take_turns_within_the_window() -> None:
    """Two groups of two publishers each, never answered: each group sends its window, and not one message more."""
    heard: dict[bytes, int] = {}

    def handle(wire: Wire) -> None:
        wire.accept()
        name = wire.read_message()
        wire.send(frame(b"welcome"))
        heard[name] = len(wire.read_to_the_end())

    connections = [Connection(i // 2, PUBLICATION, [b"%d" % i]) for i in range(4)]
    with serve(handle) as port, Load(port, "/", connections, deadline_s=0.3) as load:
        load.connect(0)
        with pytest.raises(LoadError, match=r"2 groups are incomplete; group 0: 5 of 20 messages sent, 0 of 60 marks"):
            load.flood(window=5, messages=20, copies=3)
    assert heard == {b"0": 3, b"1": 2, b"2": 3, b"3": 2}


def test_the_window_moves_with_what_is_complete() -> None:
    """At no time does the server hold more messages than the window allows, and all come through."""
    most = 0

    def handle(wire: Wire) -> None:
        nonlocal most
        wire.accept()
        for _ in range(10):  # only whole windows are answered, so that a message too many would be there to be seen
            messages = [wire.read_message() for _ in range(4)]
            wire.stream.setblocking(False)
            try:
                most = max(most, len(messages) + len(wire.stream.recv(1, socket.MSG_PEEK)))
            except BlockingIOError:
                most = max(most, len(messages))
            wire.stream.setblocking(True)
            wire.send(b"".join(frame(message) for message in messages))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        assert load.flood(window=4, messages=40, copies=1).arrived == 40
    assert most == 4


def test_a_message_without_its_ack_is_incomplete() -> None:
    """With acks, copies alone do not open the window."""
    heard: list[bytes] = []

    def handle(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(wire.read_message()))
        heard.extend(wire.read_to_the_end())

    with serve(handle) as port, Load(port, "/", [PUBLISHER], ack=ACK, deadline_s=0.3) as load:
        load.connect(0)
        with pytest.raises(LoadError, match=r"1 of 2 messages sent, 1 of 2 marks arrived, 0 acknowledged"):
            load.flood(window=1, messages=2, copies=1, acks=True)
    assert heard == []


def test_more_copies_than_expected_are_an_error() -> None:
    """Whoever miscounts the copies is told, not given figures."""

    def handle(wire: Wire) -> None:
        wire.accept()
        while True:
            wire.send(frame(mark_of(wire.read_message()) * 2))

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        with pytest.raises(LoadError, match="group 0: 2 marks for 1 messages of 1 copies"):
            load.flood(window=1, messages=5, copies=1)


def test_stragglers_of_an_earlier_command_do_not_count() -> None:
    """Marks and acks that come after their command has given up are not taken for those of the next."""

    def handle(wire: Wire) -> None:
        wire.accept()
        late = frame(wire.read_message() + ACK)
        wire.send(late + frame(wire.read_message() + ACK))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER], ack=ACK, deadline_s=0.2) as load:
        load.connect(0)
        with pytest.raises(LoadError):
            load.flood(window=1, messages=1, copies=1)
        outcome = load.flood(window=1, messages=1, copies=1, acks=True)
    assert (outcome.arrived, outcome.acked) == (1, 1)


def test_a_server_that_does_not_read_is_waited_for() -> None:
    """What its socket does not take waits here, in order, while what it sends is read."""
    large = MARK + b"x" * 200_000

    def handle(wire: Wire) -> None:
        wire.accept()
        for _ in range(80):
            wire.send(frame(mark_of(wire.read_message())))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [Connection(0, large, [])]) as load:
        load.connect(0)
        outcome = load.flood(window=80, messages=80, copies=1)
    assert (outcome.sent, outcome.arrived, outcome.latency_us.count) == (80, 80, 80)


def test_large_frames_are_read() -> None:
    """A frame of 64 KiB and more has a length of eight bytes."""

    def handle(wire: Wire) -> None:
        wire.accept()
        while True:
            wire.send(frame(b"x" * 70_000 + mark_of(wire.read_message())))

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        assert load.flood(window=1, messages=3, copies=1).latency_us.count == 3


def test_a_steady_rate() -> None:
    """So many messages in so long, the groups in turn, all copies counted."""
    heard: list[int] = []

    def handle(wire: Wire) -> None:
        wire.accept()
        messages = 0
        try:
            while True:
                wire.send(frame(wire.read_message()))
                messages += 1
        finally:
            heard.append(messages)

    with serve(handle) as port, Load(port, "/", [PUBLISHER, Connection(1, PUBLICATION, [])]) as load:
        load.connect(0)
        outcome = load.rate(per_second=200, seconds=0.2, copies=1)
    assert (outcome.sent, outcome.arrived, outcome.missing, outcome.latency_us.count) == (40, 40, 0, 40)
    assert outcome.seconds >= 39 / 200
    assert heard == [20, 20]


def test_a_stall_shows_in_an_open_loop() -> None:
    """Messages that were due while the server stood still are measured from then: 60 of 200 here, not one."""

    def handle(wire: Wire) -> None:
        wire.accept()
        for number in range(200):
            message = wire.read_message()
            if number == 50:
                time.sleep(0.3)  # the stall itself: what is tested, not hoped for
            wire.send(frame(message))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        outcome = load.rate(per_second=200, seconds=1, copies=1)
    assert outcome.missing == 0
    assert outcome.latency_us.max >= 300_000
    assert outcome.latency_us.p99 >= 250_000


def test_a_load_that_stood_still_says_so() -> None:
    """What the load side itself sent too late is counted as late, and its latency counts from when it was due."""

    def handle(wire: Wire) -> None:
        wire.accept()
        for number in range(200):
            message = wire.read_message()
            if number == 50:
                os.kill(load.pid, signal.SIGSTOP)
                time.sleep(0.3)  # how long it stands still
                os.kill(load.pid, signal.SIGCONT)
            wire.send(frame(message))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        outcome = load.rate(per_second=200, seconds=1, copies=1)
    assert (outcome.sent, outcome.missing) == (200, 0)
    assert outcome.late >= 50
    assert outcome.latency_us.p99 >= 250_000


def test_what_never_comes_is_missing() -> None:
    """When the patience is over the rest is counted as missing."""

    def handle(wire: Wire) -> None:
        wire.accept()
        for _ in range(3):
            wire.send(frame(wire.read_message()))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        outcome = load.rate(per_second=1000, seconds=0.01, copies=2, patience_s=0.1)
    assert (outcome.sent, outcome.arrived, outcome.missing) == (10, 3, 17)


def test_text_is_sent_as_text() -> None:
    """The kind of frames is the plan's, for publications too."""
    kinds: list[int] = []

    def handle(wire: Wire) -> None:
        wire.accept()
        kind, message = wire.read_frame()
        kinds.append(kind)
        wire.send(frame(message))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        load.flood(window=1, messages=1, copies=1)
    assert kinds == [TEXT]
