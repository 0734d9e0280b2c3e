"""The load program for WebSocket: publishing, counting and measuring."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from bench.load import MARK, Connection, Load, LoadError
from tests.bench.fake_server import TEXT, FakeConnection, fragments, frame, mark_of, serve

ACK = b'"ok":{}'
PUBLICATION = b'{"publish":"' + MARK + b'"}'
PUBLISHER = Connection(0, PUBLICATION, [])


@pytest.mark.parametrize("way", ["fragments", "bytes", "together"])
def test_divided_marks_and_acks_are_found(way: str) -> None:
    """One frame per byte, one packet per byte, or several in one frame: each mark and each ack counts once."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        while True:
            payload = connection.read_message()
            copies = b'""ok:{} ' + mark_of(payload) * 2 + ACK + b" and " + mark_of(payload)
            if way == "bytes":
                connection.send_bytes_one_by_one(frame(copies))
            else:
                connection.send(fragments(copies) if way == "fragments" else frame(copies))

    with serve(handle) as port, Load(port, "/", [PUBLISHER], ack=ACK) as load:
        load.connect(0)
        outcome = load.flood(window=2, messages=20, copies=3, acks=True)
    assert (outcome.sent, outcome.arrived, outcome.acked) == (20, 60, 20)
    assert outcome.latency_us.count == 60
    assert 0 < outcome.latency_us.p50 <= outcome.latency_us.p99 <= outcome.latency_us.p999 <= outcome.latency_us.max
    assert outcome.latency_us.max <= outcome.seconds * 1e6
    assert outcome.cpu_s > 0


def test_publishers_take_turns_within_the_window() -> None:
    """Two groups of two publishers, and a server that sends nothing: each group sends exactly its window."""
    received: dict[bytes, int] = {}

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        name = connection.read_message()
        connection.send(frame(b"welcome"))
        received[name] = len(connection.read_to_end())

    connections = [Connection(i // 2, PUBLICATION, [b"%d" % i]) for i in range(4)]
    with serve(handle) as port, Load(port, "/", connections, deadline_s=0.3) as load:
        load.connect(0)
        with pytest.raises(LoadError, match=r"2 groups are incomplete; group 0: 5 of 20 messages sent, 0 of 60 marks"):
            load.flood(window=5, messages=20, copies=3)
    assert received == {b"0": 3, b"1": 2, b"2": 3, b"3": 2}


def test_the_window_moves_with_complete_messages() -> None:
    """The server never has more messages than the window allows, and all are delivered."""
    most = 0

    def handle(connection: FakeConnection) -> None:
        nonlocal most
        connection.accept()
        for _ in range(10):  # the server replies only to whole windows, so a message beyond the window would be visible
            messages = [connection.read_message() for _ in range(4)]
            connection.stream.setblocking(False)
            try:
                most = max(most, len(messages) + len(connection.stream.recv(1, socket.MSG_PEEK)))
            except BlockingIOError:
                most = max(most, len(messages))
            connection.stream.setblocking(True)
            connection.send(b"".join(frame(message) for message in messages))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        assert load.flood(window=4, messages=40, copies=1).arrived == 40
    assert most == 4


def test_a_message_without_its_ack_is_incomplete() -> None:
    """With acks, copies alone do not complete a message."""
    received: list[bytes] = []

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        connection.send(frame(connection.read_message()))
        received.extend(connection.read_to_end())

    with serve(handle) as port, Load(port, "/", [PUBLISHER], ack=ACK, deadline_s=0.3) as load:
        load.connect(0)
        with pytest.raises(LoadError, match=r"1 of 2 messages sent, 1 of 2 marks arrived, 0 acknowledged"):
            load.flood(window=1, messages=2, copies=1, acks=True)
    assert received == []


def test_more_copies_than_expected_are_an_error() -> None:
    """A wrong number of copies gives an error instead of results."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        while True:
            connection.send(frame(mark_of(connection.read_message()) * 2))

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        with pytest.raises(LoadError, match="group 0: 2 marks for 1 messages of 1 copies"):
            load.flood(window=1, messages=5, copies=1)


def test_late_messages_of_an_earlier_command_do_not_count() -> None:
    """Marks and acks that are received after the end of their command do not count for the next one."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        late = frame(connection.read_message() + ACK)
        connection.send(late + frame(connection.read_message() + ACK))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER], ack=ACK, deadline_s=0.2) as load:
        load.connect(0)
        with pytest.raises(LoadError):
            load.flood(window=1, messages=1, copies=1)
        outcome = load.flood(window=1, messages=1, copies=1, acks=True)
    assert (outcome.arrived, outcome.acked) == (1, 1)


def test_data_is_queued_while_the_server_does_not_read() -> None:
    """Data that the socket does not accept is queued in order, and the load program continues reading."""
    large = MARK + b"x" * 200_000

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        for _ in range(80):
            connection.send(frame(mark_of(connection.read_message())))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [Connection(0, large, [])]) as load:
        load.connect(0)
        outcome = load.flood(window=80, messages=80, copies=1)
    assert (outcome.sent, outcome.arrived, outcome.latency_us.count) == (80, 80, 80)


def test_large_frames_are_read() -> None:
    """A frame of 64 KiB and more has a length of eight bytes."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        while True:
            connection.send(frame(b"x" * 70_000 + mark_of(connection.read_message())))

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        assert load.flood(window=1, messages=3, copies=1).latency_us.count == 3


def test_a_steady_rate() -> None:
    """The number of messages follows from rate and time, groups take turns, and all copies are counted."""
    received: list[int] = []

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        messages = 0
        try:
            while True:
                connection.send(frame(connection.read_message()))
                messages += 1
        finally:
            received.append(messages)

    with serve(handle) as port, Load(port, "/", [PUBLISHER, Connection(1, PUBLICATION, [])]) as load:
        load.connect(0)
        outcome = load.rate(per_second=200, seconds=0.2, copies=1)
    assert (outcome.sent, outcome.arrived, outcome.missing, outcome.latency_us.count) == (40, 40, 0, 40)
    assert outcome.seconds >= 39 / 200
    assert received == [20, 20]


def test_a_stall_shows_in_an_open_loop() -> None:
    """The latency of messages that were due during a stall counts from then: 60 of 200 messages here, not only one."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        for number in range(200):
            message = connection.read_message()
            if number == 50:
                time.sleep(0.3)  # the stall that is tested
            connection.send(frame(message))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        outcome = load.rate(per_second=200, seconds=1, copies=1)
    assert outcome.missing == 0
    assert outcome.latency_us.max >= 300_000
    assert outcome.latency_us.p99 >= 250_000


def test_a_stall_of_the_load_program_is_reported() -> None:
    """Messages that the load program sends too late count as late. Their latency counts from when they were due."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        for number in range(200):
            message = connection.read_message()
            if number == 50:
                os.kill(load.pid, signal.SIGSTOP)
                time.sleep(0.3)  # the duration of the stall
                os.kill(load.pid, signal.SIGCONT)
            connection.send(frame(message))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        outcome = load.rate(per_second=200, seconds=1, copies=1)
    assert (outcome.sent, outcome.missing) == (200, 0)
    assert outcome.late >= 50
    assert outcome.latency_us.p99 >= 250_000


def test_copies_that_are_not_received_are_missing() -> None:
    """After the timeout, the remaining copies are counted as missing."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        for _ in range(3):
            connection.send(frame(connection.read_message()))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        outcome = load.rate(per_second=1000, seconds=0.01, copies=2, timeout_s=0.1)
    assert (outcome.sent, outcome.arrived, outcome.missing) == (10, 3, 17)


def test_text_is_sent_as_text() -> None:
    """Publications have the frame type of the plan."""
    types: list[int] = []

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        frame_type, message = connection.read_frame()
        types.append(frame_type)
        connection.send(frame(message))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        load.flood(window=1, messages=1, copies=1)
    assert types == [TEXT]
