"""The load program for WebSocket: opening, keeping and losing connections."""

from __future__ import annotations

import threading

import pytest
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from bench.load import MARK, Connection, Load, LoadError
from bench.peers import PEERS
from tests.bench.fake_server import CLOSE, PING, PONG, FakeConnection, frame, serve

PUBLICATION = b'{"publish":"' + MARK + b'"}'
SUBSCRIBER = Connection(0, None, [])
PUBLISHER = Connection(0, PUBLICATION, [])


def test_setup_messages_wait_for_replies() -> None:
    """Each setup message is sent after the reply to the one before, as text or binary. The request has the path."""
    received: list[tuple[int, bytes]] = []

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        assert connection.request.startswith(b"GET /connection?a=b HTTP/1.1\r\n")
        for _ in range(2):
            received.append(connection.read_frame())
            connection.send(frame(b""))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/connection?a=b", [Connection(0, None, [b"one", b"\x02"], True)]) as load:
        outcome = load.connect(0)
    assert received == [(2, b"one"), (2, b"\x02")]
    assert outcome.count == outcome.latency_us.count == 1
    assert 0 < outcome.latency_us.p50 <= outcome.latency_us.max <= outcome.seconds * 1e6


def test_a_setup_message_without_a_reply_blocks_the_next() -> None:
    """At the deadline the error names the connection and its state. The second setup message is never sent."""
    received: list[bytes] = []

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        received.extend(connection.read_to_end())

    with (
        serve(handle) as port,
        Load(port, "/", [Connection(0, None, [b"one", b"two"])], deadline_s=0.2) as load,
        pytest.raises(LoadError, match=r"after 0.2 s 0 of 1 .* connection 0 awaits 1 message.*setup message 1 of 2"),
    ):
        load.connect(0)
    assert received == [b"one"]


def test_initial_messages_of_the_server_come_before_the_first_setup_message() -> None:
    """The load program sends nothing before it has received the initial messages."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        connection.send(frame(b"open") + frame(b"welcome", final=False))
        connection.send(frame(b"!", 0))
        assert connection.read_message() == b"hello"
        connection.send(frame(b"hello yourself"))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [Connection(0, None, [b"hello"])], initial_messages=2) as load:
        assert load.connect(0).count == 1


def test_missing_initial_messages_block_the_first_setup_message() -> None:
    """One initial message of two is not enough."""
    received: list[bytes] = []

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        connection.send(frame(b"open"))
        received.extend(connection.read_to_end())

    with (
        serve(handle) as port,
        Load(port, "/", [Connection(0, None, [b"hello"])], initial_messages=2, deadline_s=0.2) as load,
        pytest.raises(LoadError, match="awaits 1 message"),
    ):
        load.connect(0)
    assert received == []


def test_concurrency_limits_connections_that_are_being_opened() -> None:
    """With a concurrency of 3, at most 3 connections wait for a reply at a time. In the end all are open."""
    lock, waiting, most = threading.Lock(), 0, 0

    def handle(connection: FakeConnection) -> None:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        connection.accept()
        connection.read_message()
        with lock:
            waiting -= 1
        connection.send(frame(b"welcome"))
        connection.read_to_end()

    with serve(handle) as port, Load(port, "/", [Connection(0, None, [b"hello"])] * 30) as load:
        assert load.connect(3).count == 30
        assert load.connect(3).count == 0, "all are open already"
    assert most <= 3


def test_connecting_waits_for_marks() -> None:
    """A connection is open after the requested number of marks, of any age. The reply may contain some of them."""

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        connection.read_message()
        connection.send(frame(b"missed: ~0000000000000001"))
        connection.send(frame(b"~0000000000000002 ~0000000000000003"))
        connection.read_to_end()

    connections = [Connection(0, None, [b"since 0"])] * 4
    with serve(handle) as port:
        with Load(port, "/", connections) as load:
            assert load.connect(2, marks=3).count == 4
        with Load(port, "/", connections, deadline_s=0.2) as load, pytest.raises(LoadError, match=r"awaits 1 mark"):
            load.connect(0, marks=4)


def test_pings_are_answered_within_a_message_and_while_idle() -> None:
    """A ping between fragments is answered with its payload, and so is a ping while no command runs."""
    answers: list[tuple[int, bytes]] = []
    idle, answered = threading.Event(), threading.Event()

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        copy = connection.read_message()
        connection.send(frame(copy[:15], final=False) + frame(b"amid", PING))
        answers.append(connection.read_frame())
        connection.send(frame(copy[15:], 0))
        idle.wait(10)
        connection.send(frame(b"x" * 125, PING))
        answers.append(connection.read_frame())
        answered.set()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        assert load.flood(window=1, messages=1, copies=1).latency_us.count == 1
        idle.set()
        assert answered.wait(10)
    assert answers == [(PONG, b"amid"), (PONG, b"x" * 125)]


@pytest.mark.parametrize(
    ("last_bytes", "text"),
    [
        (frame((3012).to_bytes(2, "big") + b"no pong", CLOSE), 'connection 1: .* code 3012 and reason "no pong"'),
        (frame(b"", CLOSE), "connection 1: .* without a code"),
        (b"", "connection 1: the server ended it without a close frame"),
        (b"\x81\x85masked", "connection 1: the server sent an invalid frame"),
    ],
)
def test_an_ended_connection_is_an_error(last_bytes: bytes, text: str) -> None:
    """The error names the connection, and code and reason if there are any."""
    all_open = threading.Barrier(2)

    def handle(connection: FakeConnection) -> None:
        connection.accept()
        closes = connection.read_message() == b"1"
        connection.send(frame(b"welcome"))
        if not closes:
            connection.read_to_end()
            return
        all_open.wait(10)
        connection.send(last_bytes)

    connections = [Connection(0, PUBLICATION, [b"0"]), Connection(0, None, [b"1"])]
    with serve(handle) as port, Load(port, "/", connections) as load:
        load.connect(0)
        all_open.wait(10)
        with pytest.raises(LoadError, match=text):
            load.flood(window=1, messages=1, copies=1)
        with pytest.raises(LoadError):
            load.flood(window=1, messages=1, copies=1)


def test_a_refused_handshake_is_an_error() -> None:
    """The error has the HTTP status. A port without a server is an error, too."""

    def handle(connection: FakeConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    with (
        serve(handle) as port,
        Load(port, "/", [SUBSCRIBER]) as load,
        pytest.raises(LoadError, match="HTTP status 403"),
    ):
        load.connect(0)
    with Load(port, "/", [SUBSCRIBER]) as load, pytest.raises(LoadError, match=r"connection 0: .*refused"):
        load.connect(0)


def test_an_invalid_plan_is_an_error() -> None:
    """The error names the line."""
    with pytest.raises(LoadError, match="line 2 of the plan: the group must be a number"):
        Load(1, "/", [SUBSCRIBER, Connection(-1, None, [])])


def test_publishing_before_connecting_is_an_error() -> None:
    """A publisher must be open, and there must be one."""
    with Load(1, "/", [PUBLISHER]) as load, pytest.raises(LoadError, match="connection 0 publishes but is not open"):
        load.flood(window=1, messages=1, copies=1)
    with Load(1, "/", [SUBSCRIBER]) as load, pytest.raises(LoadError, match="no connection publishes"):
        load.flood(window=1, messages=1, copies=1)


def test_a_real_websocket_server() -> None:
    """The library `websockets` accepts the client: handshake, frames, pings, messages between connections."""
    members: set[ServerConnection] = set()
    lock = threading.Lock()

    def handle(connection: ServerConnection) -> None:
        assert connection.recv() == "hello"
        assert connection.ping().wait(10)
        with lock:
            members.add(connection)
        connection.send("welcome")
        for message in connection:
            with lock:
                for member in members:
                    member.send(message)

    connections = [Connection(0, PUBLICATION if i < 2 else None, [b"hello"]) for i in range(10)]
    with serve_websockets(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Load(server.socket.getsockname()[1], "/", connections) as load:
            load.connect(0)
            assert load.flood(window=4, messages=50, copies=10).arrived == 500
        server.shutdown()
        thread.join()


def test_the_c_loop() -> None:
    """The C loop replies to setup messages with empty frames, which count as replies."""
    connections = [*[Connection(0, None, [b"one", b"two"])] * 20, Connection(0, MARK, [b"one"])]
    with PEERS["c-loop"].start() as loop, Load(loop.port, "/", connections) as load:
        assert load.connect(0).count == 21
        outcome = load.flood(window=8, messages=100, copies=20)
    assert (outcome.sent, outcome.arrived, outcome.latency_us.count) == (100, 2000, 2000)
