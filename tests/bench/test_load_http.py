"""The load program for HTTP: complete responses with any framing, divided at any place, one after the other."""

from __future__ import annotations

import threading
import time

import pytest

from bench.load import HttpLoad, LoadError
from tests.bench.fake_server import FakeConnection, serve

REQUEST = b"POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 500 + b"\r\ncontent-length: 12\r\n\r\n\r\n\r\nHTTP/1.1"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"c;extension=1\r\n\r\n0\r\n\r\nfour\r\n\r\n1\r\n0\r\n0\r\nTrailer: 1\r\n\r\n"
)
FAILED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def answer(response: bytes, connection: FakeConnection) -> None:
    while True:
        assert connection.read_request() == REQUEST
        connection.send(response)


@pytest.mark.parametrize("response", [SIZED, EMPTY, CHUNKED, FAILED], ids=["sized", "empty", "chunked", "failed"])
def test_responses_with_all_kinds_of_framing(response: bytes) -> None:
    """Each is read exactly to its end, in one piece or divided. Status codes other than 2xx are counted."""

    def slowly(connection: FakeConnection) -> None:
        while True:
            assert connection.read_request() == REQUEST
            connection.send_bytes_one_by_one(response)

    for handle in (slowly, lambda connection: answer(response, connection)):
        with serve(handle) as port, HttpLoad(port, 3, REQUEST) as load:
            outcome = load.flood(requests=20)
        assert (outcome.answered, outcome.latency_us.count) == (20, 20)
        assert outcome.not_2xx == (20 if response == FAILED else 0)
        assert 0 < outcome.latency_us.p50 <= outcome.latency_us.max <= outcome.seconds * 1e6


def test_one_request_at_a_time_on_each_connection() -> None:
    """A request is sent after the end of the response to the one before. The number of requests is exact."""
    received: list[int] = []

    def handle(connection: FakeConnection) -> None:
        requests = 0
        try:
            while True:
                connection.read_request()
                requests += 1
                connection.send(SIZED[:-1])
        finally:
            received.append(requests)

    with (
        serve(handle) as port,
        HttpLoad(port, 2, REQUEST, deadline_s=0.2) as load,
        pytest.raises(LoadError, match=r"after 0.2 s 0 of 9 requests are answered"),
    ):
        load.flood(requests=9)
    assert received == [1, 1]


def test_a_steady_rate() -> None:
    """The number of requests follows from rate and time, and connections take turns."""
    received: list[int] = []

    def handle(connection: FakeConnection) -> None:
        requests = 0
        try:
            while True:
                connection.read_request()
                requests += 1
                connection.send(EMPTY)
        finally:
            received.append(requests)

    with serve(handle) as port, HttpLoad(port, 4, REQUEST) as load:
        outcome = load.rate(per_second=100, seconds=0.2)
    assert (outcome.answered, outcome.missing) == (20, 0)
    assert outcome.seconds >= 19 / 100
    assert sum(received) == 20
    assert min(received) > 0


def test_a_stall_shows_in_an_open_loop() -> None:
    """A request that waits for a free connection is late, and its latency counts from when it was due."""

    def handle(connection: FakeConnection) -> None:
        for number in range(200):
            connection.read_request()
            if number == 50:
                time.sleep(0.3)  # the stall that is tested
            connection.send(EMPTY)
        answer(EMPTY, connection)

    with serve(handle) as port, HttpLoad(port, 1, REQUEST) as load:
        outcome = load.rate(per_second=200, seconds=1)
    assert (outcome.answered, outcome.missing) == (200, 0)
    assert outcome.latency_us.max >= 300_000
    assert outcome.latency_us.p99 >= 250_000
    assert outcome.late >= 50


def test_responses_that_are_not_received_are_missing() -> None:
    """After the timeout, the remaining responses are missing. The next command does not count late responses."""
    timed_out = threading.Event()

    def handle(connection: FakeConnection) -> None:
        connection.read_request()
        timed_out.wait(10)
        connection.send(FAILED)
        answer(EMPTY, connection)

    with serve(handle) as port, HttpLoad(port, 2, REQUEST) as load:
        outcome = load.rate(per_second=1000, seconds=0.005, timeout_s=0.1)
        assert (outcome.answered, outcome.missing) == (0, 5)
        timed_out.set()
        outcome = load.flood(requests=4)
    assert (outcome.answered, outcome.not_2xx) == (4, 0)


def test_an_idle_connection_that_the_server_closed_is_opened_again() -> None:
    """A connection that the server closes instead of responding is an error."""
    dropped, served = threading.Semaphore(0), 0

    def once(connection: FakeConnection) -> None:
        nonlocal served
        connection.read_request()
        served += 1
        if served < 3:
            connection.send(EMPTY)
        connection.close()
        dropped.release()

    with serve(once) as port, HttpLoad(port, 1, REQUEST) as load:
        for _ in range(2):
            assert load.rate(per_second=1000, seconds=0.001).answered == 1
            dropped.acquire()
        with pytest.raises(LoadError, match="connection 0: the server closed it instead of responding"):
            load.flood(requests=1)


@pytest.mark.parametrize("response", [b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0\r\n", EMPTY + b"more"])
def test_an_invalid_response_is_an_error(response: bytes) -> None:
    """A response without a length, of another protocol, or with bytes behind it."""

    def handle(connection: FakeConnection) -> None:
        connection.read_request()
        connection.send(response)
        connection.read_request()

    with (
        serve(handle) as port,
        HttpLoad(port, 1, REQUEST) as load,
        pytest.raises(LoadError, match="connection 0: not a valid response with a length"),
    ):
        load.flood(requests=1)
