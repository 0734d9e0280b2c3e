"""Many frames to many sockets in one go."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from beaconfire.transports.socket_writes import send_all


class Sender:
    """As much of a transport as is looked at."""

    writable = True
    buffered_bytes = 0

    def __init__(self, direct: socket.socket) -> None:
        self.direct = direct

    def write(self, data: bytes) -> None:
        raise AssertionError("sent past it")

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("that is for others to do")


@pytest.fixture
def pairs() -> Iterator[list[tuple[Sender, socket.socket]]]:
    """Four connections whose sending side never blocks."""
    with ExitStack() as stack:
        made = []
        for _ in range(4):
            near, far = socket.socketpair()
            stack.enter_context(near)
            stack.enter_context(far)
            near.setblocking(False)
            made.append((Sender(near), far))
        yield made


def test_everybody_gets_their_frame(pairs: list[tuple[Sender, socket.socket]]) -> None:
    """The first the first, and so on."""
    frames = [b"a", b"bb", b"ccc", b"dddd"]
    assert send_all([sender for sender, _ in pairs], frames) == [1, 2, 3, 4]
    assert [far.recv(100) for _, far in pairs] == frames


def test_nothing_to_send() -> None:
    """An empty volley is none."""
    assert send_all([], []) == []


@pytest.mark.parametrize("broken", [(0,), (3,), (1, 2), (0, 1, 2, 3)])
def test_broken_sockets_take_nothing_and_hurt_nobody(
    pairs: list[tuple[Sender, socket.socket]], broken: tuple[int, ...]
) -> None:
    """Wherever they stand, each of the others gets its own frame, once."""
    for index in broken:
        pairs[index][1].close()
        pairs[index][0].direct.shutdown(socket.SHUT_RDWR)
    taken = send_all([sender for sender, _ in pairs], [b"x"] * 4)
    assert taken == [0 if index in broken else 1 for index in range(4)]
    assert [far.recv(100) for index, (_, far) in enumerate(pairs) if index not in broken] == [b"x"] * (4 - len(broken))


def test_a_full_socket_takes_a_part_or_nothing(pairs: list[tuple[Sender, socket.socket]]) -> None:
    """And says how much, so that the transport goes on from there."""
    senders = [sender for sender, _ in pairs]
    large = b"x" * 10_000_000
    taken = send_all(senders, [b"a", large, b"b", b"c"])
    assert (taken[0], taken[2], taken[3]) == (1, 1, 1)
    assert 0 < taken[1] < len(large)
    again = send_all(senders, [b"a", large, b"b", b"c"])
    assert again == [1, 0, 1, 1]
    assert [far.recv(100) for index, (_, far) in enumerate(pairs) if index != 1] == [b"aa", b"bb", b"cc"]
