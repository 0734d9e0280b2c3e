"""Sending many frames to many sockets in one call."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from beaconfire.protocols.port import Frame
from beaconfire.transports.socket_writes import send_all


class DirectTransport:
    """The attributes of a transport that `send_all` uses."""

    writable = True
    buffered_bytes = 0

    def __init__(self, direct: socket.socket) -> None:
        self.direct = direct

    def write(self, frames: Sequence[Frame]) -> None:
        raise AssertionError("only the direct socket is used")

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("the caller of send_all does this")


@pytest.fixture
def pairs() -> Iterator[list[tuple[DirectTransport, socket.socket]]]:
    """Four connections whose sending side never blocks."""
    with ExitStack() as stack:
        made = []
        for _ in range(4):
            near, far = socket.socketpair()
            stack.enter_context(near)
            stack.enter_context(far)
            near.setblocking(False)
            made.append((DirectTransport(near), far))
        yield made


def test_each_socket_gets_its_frame(pairs: list[tuple[DirectTransport, socket.socket]]) -> None:
    """Frames and transports are paired by index."""
    frames = [b"a", b"bb", b"ccc", b"dddd"]
    assert send_all([sender for sender, _ in pairs], frames) == [1, 2, 3, 4]
    assert [far.recv(100) for _, far in pairs] == frames


def test_empty_batch() -> None:
    """Nothing is sent."""
    assert send_all([], []) == []


@pytest.mark.parametrize("broken", [(0,), (3,), (1, 2), (0, 1, 2, 3)])
def test_broken_sockets_do_not_affect_others(
    pairs: list[tuple[DirectTransport, socket.socket]], broken: tuple[int, ...]
) -> None:
    """At any index. All other sockets get their own frame once."""
    for index in broken:
        pairs[index][1].close()
        pairs[index][0].direct.shutdown(socket.SHUT_RDWR)
    taken = send_all([sender for sender, _ in pairs], [b"x"] * 4)
    assert taken == [0 if index in broken else 1 for index in range(4)]
    assert [far.recv(100) for index, (_, far) in enumerate(pairs) if index not in broken] == [b"x"] * (4 - len(broken))


def test_full_socket_takes_a_part_or_nothing(pairs: list[tuple[DirectTransport, socket.socket]]) -> None:
    """The result says how much, so that the transport can send the rest."""
    senders = [sender for sender, _ in pairs]
    large = b"x" * 10_000_000
    taken = send_all(senders, [b"a", large, b"b", b"c"])
    assert (taken[0], taken[2], taken[3]) == (1, 1, 1)
    assert 0 < taken[1] < len(large)
    again = send_all(senders, [b"a", large, b"b", b"c"])
    assert again == [1, 0, 1, 1]
    assert [far.recv(100) for index, (_, far) in enumerate(pairs) if index != 1] == [b"aa", b"bb", b"cc"]
