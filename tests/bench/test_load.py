"""The load program for WebSocket: opening connections, keeping them, and losing them."""

from __future__ import annotations

import threading

import pytest
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from bench.load import MARK, Connection, Load, LoadError
from bench.peers import PEERS
from tests.bench.wire import CLOSE, PING, PONG, Wire, frame, serve

PUBLICATION = b'{"publish":"' + MARK + b'"}'
QUIET = Connection(0, None, [])
PUBLISHER = Connection(0, PUBLICATION, [])


def test_greetings_wait_for_their_answers() -> None:
    """Each greeting is said after the one before was answered, as text or binary, and the path is asked for."""
    heard: list[tuple[int, bytes]] = []

    def handle(wire: Wire) -> None:
        wire.accept()
        assert wire.request.startswith(b"GET /connection?a=b HTTP/1.1\r\n")
        for _ in range(2):
            heard.append(wire.read_frame())
            wire.send(frame(b""))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/connection?a=b", [Connection(0, None, [b"one", b"\x02"], True)]) as load:
        outcome = load.connect(0)
    assert heard == [(2, b"one"), (2, b"\x02")]
    assert outcome.count == outcome.latency_us.count == 1
    assert 0 < outcome.latency_us.p50 <= outcome.latency_us.max <= outcome.seconds * 1e6


def test_a_greeting_without_an_answer_is_the_last() -> None:
    """At the deadline the error says which connection is stuck where, and the second greeting was never said."""
    heard: list[bytes] = []

    def handle(wire: Wire) -> None:
        wire.accept()
        heard.extend(wire.read_to_the_end())

    with (
        serve(handle) as port,
        Load(port, "/", [Connection(0, None, [b"one", b"two"])], deadline_s=0.2) as load,
        pytest.raises(LoadError, match=r"after 0.2 s 0 of 1 .* connection 0 awaits 1 message.*greeting 1 of 2"),
    ):
        load.connect(0)
    assert heard == [b"one"]


def test_unprompted_messages_come_before_the_first_greeting() -> None:
    """The load says nothing before the server has said what it says by itself."""

    def handle(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(b"open") + frame(b"welcome", final=False))
        wire.send(frame(b"!", 0))
        assert wire.read_message() == b"hello"
        wire.send(frame(b"hello yourself"))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [Connection(0, None, [b"hello"])], unprompted=2) as load:
        assert load.connect(0).count == 1


def test_too_few_unprompted_messages_are_waited_for() -> None:
    """One message of two is not enough to be greeted for."""
    heard: list[bytes] = []

    def handle(wire: Wire) -> None:
        wire.accept()
        wire.send(frame(b"open"))
        heard.extend(wire.read_to_the_end())

    with (
        serve(handle) as port,
        Load(port, "/", [Connection(0, None, [b"hello"])], unprompted=2, deadline_s=0.2) as load,
        pytest.raises(LoadError, match="awaits 1 message"),
    ):
        load.connect(0)
    assert heard == []


def test_so_many_connect_at_a_time() -> None:
    """With a concurrency of 3 there are never more than 3 that wait for an answer, and in the end all are open."""
    lock, waiting, most = threading.Lock(), 0, 0

    def handle(wire: Wire) -> None:
        nonlocal waiting, most
        with lock:
            waiting += 1
            most = max(most, waiting)
        wire.accept()
        wire.read_message()
        with lock:
            waiting -= 1
        wire.send(frame(b"welcome"))
        wire.read_to_the_end()

    with serve(handle) as port, Load(port, "/", [Connection(0, None, [b"hello"])] * 30) as load:
        assert load.connect(3).count == 30
        assert load.connect(3).count == 0, "all are open already"
    assert most <= 3


def test_marks_that_are_awaited_on_connecting() -> None:
    """A connection is done when as many marks as asked for have arrived, of any age, one of them in the answer."""

    def handle(wire: Wire) -> None:
        wire.accept()
        wire.read_message()
        wire.send(frame(b"missed: ~0000000000000001"))
        wire.send(frame(b"~0000000000000002 ~0000000000000003"))
        wire.read_to_the_end()

    connections = [Connection(0, None, [b"since 0"])] * 4
    with serve(handle) as port:
        with Load(port, "/", connections) as load:
            assert load.connect(2, marks=3).count == 4
        with Load(port, "/", connections, deadline_s=0.2) as load, pytest.raises(LoadError, match=r"awaits 1 mark"):
            load.connect(0, marks=4)


def test_pings_are_answered_amid_a_message_and_while_idle() -> None:
    """A ping between fragments of a marked message is answered with its payload; so is one when there is no command."""
    answers: list[tuple[int, bytes]] = []
    idle, answered = threading.Event(), threading.Event()

    def handle(wire: Wire) -> None:
        wire.accept()
        copy = wire.read_message()
        wire.send(frame(copy[:15], final=False) + frame(b"amid", PING))
        answers.append(wire.read_frame())
        wire.send(frame(copy[15:], 0))
        idle.wait(10)
        wire.send(frame(b"x" * 125, PING))
        answers.append(wire.read_frame())
        answered.set()

    with serve(handle) as port, Load(port, "/", [PUBLISHER]) as load:
        load.connect(0)
        assert load.flood(window=1, messages=1, copies=1).latency_us.count == 1
        idle.set()
        assert answered.wait(10)
    assert answers == [(PONG, b"amid"), (PONG, b"x" * 125)]


@pytest.mark.parametrize(
    ("farewell", "text"),
    [
        (frame((3012).to_bytes(2, "big") + b"no pong", CLOSE), 'connection 1: .* code 3012 and reason "no pong"'),
        (frame(b"", CLOSE), "connection 1: .* without a code"),
        (b"", "connection 1: the server ended it"),
        (b"\x81\x85masked", "connection 1: the server sent a frame that it must not"),
    ],
)
def test_an_ended_connection_is_an_error(farewell: bytes, text: str) -> None:
    """The error names the connection, and the code and the reason if there are any."""
    open_ones = threading.Barrier(2)

    def handle(wire: Wire) -> None:
        wire.accept()
        ends = wire.read_message() == b"1"
        wire.send(frame(b"welcome"))
        if not ends:
            wire.read_to_the_end()
            return
        open_ones.wait(10)
        wire.send(farewell)

    connections = [Connection(0, PUBLICATION, [b"0"]), Connection(0, None, [b"1"])]
    with serve(handle) as port, Load(port, "/", connections) as load:
        load.connect(0)
        open_ones.wait(10)
        with pytest.raises(LoadError, match=text):
            load.flood(window=1, messages=1, copies=1)
        with pytest.raises(LoadError):
            load.flood(window=1, messages=1, copies=1)


def test_a_refused_handshake_is_an_error() -> None:
    """With the status it was refused with; and so is a port where nobody listens."""

    def handle(wire: Wire) -> None:
        wire.read_request()
        wire.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    with serve(handle) as port, Load(port, "/", [QUIET]) as load, pytest.raises(LoadError, match="HTTP status 403"):
        load.connect(0)
    with Load(port, "/", [QUIET]) as load, pytest.raises(LoadError, match=r"connection 0: .*refused"):
        load.connect(0)


def test_a_plan_that_makes_no_sense_is_an_error() -> None:
    """It names the line."""
    with pytest.raises(LoadError, match="line 2 of the plan: the group must be a number"):
        Load(1, "/", [QUIET, Connection(-1, None, [])])


def test_publishing_before_connecting_is_an_error() -> None:
    """There is nobody to publish yet, or nobody at all."""
    with Load(1, "/", [PUBLISHER]) as load, pytest.raises(LoadError, match="connection 0 publishes but is not open"):
        load.flood(window=1, messages=1, copies=1)
    with Load(1, "/", [QUIET]) as load, pytest.raises(LoadError, match="nobody publishes"):
        load.flood(window=1, messages=1, copies=1)


def test_a_real_websocket_server() -> None:
    """`websockets` takes it for a client: handshake, frames, pings, many connections that hear each other."""
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
    """It answers greetings with empty frames, which is an answer too."""
    connections = [*[Connection(0, None, [b"one", b"two"])] * 20, Connection(0, MARK, [b"one"])]
    with PEERS["c-loop"].start() as loop, Load(loop.port, "/", connections) as load:
        assert load.connect(0).count == 21
        outcome = load.flood(window=8, messages=100, copies=20)
    assert (outcome.sent, outcome.arrived, outcome.latency_us.count) == (100, 2000, 2000)
