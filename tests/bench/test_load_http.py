"""The load program for HTTP: whole responses, however they are framed and cut, one after the other."""

from __future__ import annotations

import threading
import time

import pytest

from bench.load import HttpLoad, LoadError
from tests.bench.wire import Wire, serve

REQUEST = b"POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 500 + b"\r\ncontent-length: 12\r\n\r\n\r\n\r\nHTTP/1.1"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"c;extension=1\r\n\r\n0\r\n\r\nfour\r\n\r\n1\r\n0\r\n0\r\nTrailer: 1\r\n\r\n"
)
FAILED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def answer(response: bytes, wire: Wire) -> None:
    while True:
        assert wire.read_request() == REQUEST
        wire.send(response)


@pytest.mark.parametrize("response", [SIZED, EMPTY, CHUNKED, FAILED], ids=["sized", "empty", "chunked", "failed"])
def test_responses_of_all_kinds(response: bytes) -> None:
    """Each is read to its end and no further, in one piece or cut; what is not 2xx is counted."""

    def slowly(wire: Wire) -> None:
        while True:
            assert wire.read_request() == REQUEST
            wire.send_bytes_one_by_one(response)

    for handle in (slowly, lambda wire: answer(response, wire)):
        with serve(handle) as port, HttpLoad(port, 3, REQUEST) as load:
            outcome = load.flood(requests=20)
        assert (outcome.answered, outcome.latency_us.count) == (20, 20)
        assert outcome.not_2xx == (20 if response == FAILED else 0)
        assert 0 < outcome.latency_us.p50 <= outcome.latency_us.max <= outcome.seconds * 1e6


def test_one_request_at_a_time_on_each_connection() -> None:
    """The next is not sent before the response to the last has ended; no more than asked for are sent in all."""
    heard: list[int] = []

    def handle(wire: Wire) -> None:
        requests = 0
        try:
            while True:
                wire.read_request()
                requests += 1
                wire.send(SIZED[:-1])
        finally:
            heard.append(requests)

    with (
        serve(handle) as port,
        HttpLoad(port, 2, REQUEST, deadline_s=0.2) as load,
        pytest.raises(LoadError, match=r"after 0.2 s 0 of 9 requests are answered"),
    ):
        load.flood(requests=9)
    assert heard == [1, 1]


def test_a_steady_rate() -> None:
    """So many requests in so long, on all connections in turn."""
    heard: list[int] = []

    def handle(wire: Wire) -> None:
        requests = 0
        try:
            while True:
                wire.read_request()
                requests += 1
                wire.send(EMPTY)
        finally:
            heard.append(requests)

    with serve(handle) as port, HttpLoad(port, 4, REQUEST) as load:
        outcome = load.rate(per_second=100, seconds=0.2)
    assert (outcome.answered, outcome.missing) == (20, 0)
    assert outcome.seconds >= 19 / 100
    assert sum(heard) == 20
    assert min(heard) > 0


def test_a_stall_shows_in_an_open_loop() -> None:
    """A request that waits for a free connection is late, and its latency counts from when it was due."""

    def handle(wire: Wire) -> None:
        for number in range(200):
            wire.read_request()
            if number == 50:
                time.sleep(0.3)  # the stall itself: what is tested, not hoped for
            wire.send(EMPTY)
        answer(EMPTY, wire)

    with serve(handle) as port, HttpLoad(port, 1, REQUEST) as load:
        outcome = load.rate(per_second=200, seconds=1)
    assert (outcome.answered, outcome.missing) == (200, 0)
    assert outcome.latency_us.max >= 300_000
    assert outcome.latency_us.p99 >= 250_000
    assert outcome.late >= 50


def test_what_never_comes_is_missing() -> None:
    """When the patience is over, the rest is missing; the next command does not count what comes late."""
    given_up = threading.Event()

    def handle(wire: Wire) -> None:
        wire.read_request()
        given_up.wait(10)
        wire.send(FAILED)
        answer(EMPTY, wire)

    with serve(handle) as port, HttpLoad(port, 2, REQUEST) as load:
        outcome = load.rate(per_second=1000, seconds=0.005, patience_s=0.1)
        assert (outcome.answered, outcome.missing) == (0, 5)
        given_up.set()
        outcome = load.flood(requests=4)
    assert (outcome.answered, outcome.not_2xx) == (4, 0)


def test_a_connection_that_was_idle_for_long_is_opened_again() -> None:
    """Servers end idle connections; only one that ends instead of a response is an error."""
    dropped, served = threading.Semaphore(0), 0

    def once(wire: Wire) -> None:
        nonlocal served
        wire.read_request()
        served += 1
        if served < 3:
            wire.send(EMPTY)
        wire.close()
        dropped.release()

    with serve(once) as port, HttpLoad(port, 1, REQUEST) as load:
        for _ in range(2):
            assert load.rate(per_second=1000, seconds=0.001).answered == 1
            dropped.acquire()
        with pytest.raises(LoadError, match="connection 0: the server ended it instead of answering"):
            load.flood(requests=1)


@pytest.mark.parametrize("response", [b"HTTP/1.1 200 OK\r\n\r\n", b"SSH-2.0\r\n", EMPTY + b"more"])
def test_what_is_no_response_is_an_error(response: bytes) -> None:
    """One without a length, one of another protocol, one with something behind it."""

    def handle(wire: Wire) -> None:
        wire.read_request()
        wire.send(response)
        wire.read_request()

    with (
        serve(handle) as port,
        HttpLoad(port, 1, REQUEST) as load,
        pytest.raises(LoadError, match="connection 0: not a response that ends"),
    ):
        load.flood(requests=1)
