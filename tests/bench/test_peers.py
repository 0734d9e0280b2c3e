"""The peers of the benchmark: what their dialects say, that they are pinned, and that two of them really serve."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.sync.client import ClientConnection, connect

from beaconfire.protocols.centrifuge.schema_pb2 import Command
from bench.peers import PEERS, centrifuge
from bench.peers.base import CAPABILITIES, Dialect, Running, pinned_version
from bench.peers.c_loop import LoopDialect
from bench.peers.centrifuge import DIALECTS, Position
from bench.peers.socketio import SocketIoDialect
from bench.peers.text import TextDialect
from bench.processes import HeldPort, Program

SOURCES = Path(centrifuge.__file__).parent
MARK = "~" + "0" * 16
HANDSHAKE_KEY = "AAECAwQFBgcICQoLDA0ODw=="
BURN = """
import subprocess, sys
burning = '''
import threading, time
def burn():
    while time.thread_time() < .05: pass
thread = threading.Thread(target=burn)
thread.start()
thread.join()
print("burnt", flush=True)
input()
'''
subprocess.Popen([sys.executable, "-c", burning], stdin=subprocess.PIPE).wait()
"""
"""A program whose child has a thread that uses 50 ms of CPU and ends; both wait then."""


# --- dialects --------------------------------------------------------------------------------------------------------


def undelimited(message: bytes) -> Command:
    """The one command in a message, whose varint of length must be right."""
    length = shift = at = 0
    while True:
        length |= (message[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if message[at - 1] < 128:
            break
    assert len(message) == at + length
    return Command.FromString(message[at:])


def test_centrifuge_json_greets_with_a_token_and_subscribes() -> None:
    """Connect with a token that the configured secret verifies, then one subscribe per channel, ids rising."""
    connecting, *subscribing = map(json.loads, DIALECTS["json"].greetings("ann", ["one", "two"]))
    claims = jwt.decode(connecting["connect"]["token"], centrifuge.SECRET, algorithms=["HS256"])
    assert (connecting["id"], claims["sub"]) == (1, "ann")
    assert claims["exp"] > time.time()
    assert subscribing == [{"id": 2, "subscribe": {"channel": "one"}}, {"id": 3, "subscribe": {"channel": "two"}}]


def test_centrifuge_protobuf_says_the_same_as_json() -> None:
    """Both codecs carry the same commands; data are the same bytes."""
    connecting, subscribing = map(undelimited, DIALECTS["protobuf"].greetings("ann", ["one"]))
    assert (connecting.id, subscribing.id, subscribing.subscribe.channel) == (1, 2, "one")
    assert jwt.decode(connecting.connect.token, centrifuge.SECRET, algorithms=["HS256"])["sub"] == "ann"
    binary = undelimited(DIALECTS["protobuf"].publish("one", MARK))
    text = json.loads(DIALECTS["json"].publish("one", MARK))
    assert (binary.id, binary.publish.channel) == (text["id"], text["publish"]["channel"])
    assert json.loads(binary.publish.data) == text["publish"]["data"] == MARK


@pytest.mark.parametrize("codec", DIALECTS)
def test_recovery_asks_from_a_position(codec: str) -> None:
    """The subscribe of recovery holds epoch and offset."""
    message = DIALECTS[codec].recover_greetings("ann", "log:a", Position(7, "abc"))[-1]
    if codec == "json":
        asked = json.loads(message)["subscribe"]
        assert asked == {"channel": "log:a", "recover": True, "epoch": "abc", "offset": 7}
    else:
        subscribe = undelimited(message).subscribe
        assert (subscribe.recover, subscribe.epoch, subscribe.offset) == (True, "abc", 7)


def test_a_length_that_looks_like_a_mark_is_refused() -> None:
    """In Protobuf a length of 126 is the byte of a mark: the load would write the time over the message."""
    publish = DIALECTS["protobuf"].publish
    with pytest.raises(ValueError, match="another length"):
        publish("one", MARK + "x" * (126 - 2 - len(MARK)))
    assert publish("one", MARK + "x" * (125 - 2 - len(MARK))).count(b"~") == 1


def test_position_is_read_from_answers_of_the_api() -> None:
    """Offset and epoch of a result; an offset that is left out is 0; an error is no position."""
    assert centrifuge.position(b'{"result":{"publications":[],"offset":3,"epoch":"e"}}') == Position(3, "e")
    assert centrifuge.position(b'{"result":{"epoch":"e"}}') == Position(0, "e")
    with pytest.raises(ValueError, match="108"):
        centrifuge.position(b'{"error":{"code":108,"message":"not available"}}')


def test_socket_io_events_carry_the_number_of_their_acknowledgement() -> None:
    """Joining is event 0, publishing event 1, and the pattern that is looked for acknowledges only the latter."""
    dialect = SocketIoDialect()
    assert dialect.greetings("ann", ["one"]) == [b"40", b'420["join","one"]']
    assert dialect.publish("one", MARK) == f'421["to","one","{MARK}"]'.encode()
    assert dialect.ack not in b"430[]"


def test_text_is_two_words() -> None:
    """`join` and `to`."""
    assert TextDialect().greetings("ann", ["one", "two"]) == [b"join one", b"join two"]
    assert TextDialect().publish("one", MARK) == f"to one {MARK}".encode()


def test_the_loop_is_sent_data_alone() -> None:
    """What it passes on is what it got."""
    assert LoopDialect().publish("one", MARK) == MARK.encode()
    assert LoopDialect().greetings("ann", ["one"]) == [b"hello"]


@pytest.mark.parametrize("name", PEERS)
def test_acknowledgements_are_never_in_what_is_published(name: str) -> None:
    """A peer that acknowledges has a pattern for it, which what clients say does not hold."""
    for dialect in PEERS[name].dialects.values():
        assert bool(dialect.ack) == ("acks" in PEERS[name].capabilities)
        assert not dialect.ack or dialect.ack not in dialect.publish("room", MARK + "x" * 64)


# --- pins and configurations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_says_what_it_is(name: str) -> None:
    """Known capabilities, a configuration to read, and under the name it is listed by."""
    peer = PEERS[name]
    assert peer.name == name
    assert peer.capabilities <= CAPABILITIES
    assert ("protobuf" in peer.capabilities) == ("protobuf" in peer.dialects)
    assert peer.configuration.startswith("$ ")
    assert name == "c-loop" or re.search(r"\d+\.\d+\.\d+|\d+\.\d+", peer.title)


def normal(table: dict[str, Any]) -> dict[str, Any]:
    """Options of Beaconfire as Centrifugo writes the same values."""
    return {name: {"1h": "3600s", "16MB": 16_000_000}.get(value, value) for name, value in table.items()}


def test_both_centrifuge_servers_are_configured_alike() -> None:
    """The same secret and key, the same limits, and channels that may do the same."""
    ours = tomllib.loads((SOURCES / "beaconfire" / "beaconfire.toml").read_text())
    theirs = tomllib.loads((SOURCES / "centrifugo" / "centrifugo.toml").read_text())
    assert ours["token"]["hmac_secret"] == theirs["client"].pop("token")["hmac_secret_key"] == centrifuge.SECRET
    assert ours["api"]["keys"] == [theirs["http_api"]["key"]] == [centrifuge.API_KEY]
    assert theirs["client"].items() <= normal(ours["client"]).items()
    assert theirs["websocket"] == normal(ours["websocket"])
    assert theirs["channel"]["without_namespace"] == normal(ours["channel"])
    namespaces = [{"name": name, **normal(options)} for name, options in ours["namespaces"].items()]
    assert theirs["channel"]["namespaces"] == namespaces


def test_everything_is_pinned_and_no_registry_is_named() -> None:
    """Requirements with exact versions, packages with exact versions and hashes, and no addresses in either."""
    for file in SOURCES.glob("*/requirements.txt"):
        assert all(re.match(r"[\w-]+==\S+( ;|$)", line) for line in file.read_text().splitlines()), file
    for file in SOURCES.glob("*/package.json"):
        assert all(
            re.fullmatch(r"[\d.]+", version) for version in json.loads(file.read_text())["dependencies"].values()
        )
        lock = file.with_name("package-lock.json").read_text()
        assert "://" not in lock
        assert all("integrity" in package for path, package in json.loads(lock)["packages"].items() if path)


def test_a_missing_pin_is_an_error(tmp_path: Path) -> None:
    """A version is found by the whole name of its package, in each kind of file."""
    file = tmp_path / "pins"
    file.write_text(
        'channels-redis==4.3.0\n    "ws": "8.1.0",\nrequire example.org/a/b v1.2.3\n\texample.org/c v2.0.0\n'
    )
    found = [pinned_version(file, name) for name in ("channels-redis", "ws", "example.org/a/b", "example.org/c")]
    assert found == ["4.3.0", "8.1.0", "1.2.3", "2.0.0"]
    with pytest.raises(ValueError, match="does not pin channels"):
        pinned_version(file, "channels")


# --- processes -------------------------------------------------------------------------------------------------------


def state(pid: int) -> str:
    """What a process is doing, as the kernel's letter; Z or nothing once it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_program_is_measured_and_ended_with_its_children() -> None:
    """CPU time that a thread of a child used, which has ended, counts; both processes weigh; both are ended."""
    with Program([sys.executable, "-c", BURN]) as program:
        assert program.read_line() == "burnt"
        parent, child = program.pids()
        assert program.cpu_s() >= 0.05
        assert program.resident_bytes() > 2 << 20
    assert (state(parent), state(child) in "Z") == ("", True)
    assert (program.pids(), program.cpu_s(), program.resident_bytes()) == ([], 0, 0)


def test_a_held_port_is_for_who_was_told_its_number() -> None:
    """The kernel gives it to nobody else, before, between and after servers; nothing listens unless a server does."""
    with HeldPort() as held:
        for _ in range(2):
            with socket.create_server(("127.0.0.1", held.number)):
                socket.create_connection(("127.0.0.1", held.number), 5).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", held.number), 5)
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", held.number))


def test_a_peer_that_does_not_start_leaves_nothing_behind() -> None:
    """All its parts are ended, those that did start too."""
    running = Running()
    listen = f"import socket; s = socket.create_server(('127.0.0.1', {running.port})); s.accept(); input()"
    running.launch([sys.executable, "-c", listen + "; s.accept()"], part="first")
    with pytest.raises(RuntimeError, match="did not start"):
        running.launch([sys.executable, "-c", ""], port=1)
    assert running.cpu_s_by_part() == {"first": 0, "server": 0}


# --- two that really serve -------------------------------------------------------------------------------------------


def greet(client: ClientConnection, dialect: Dialect, greetings: list[bytes]) -> list[str | bytes]:
    """Says each greeting and returns the answers."""
    answers = []
    for greeting in greetings:
        say(client, dialect, greeting)
        answers.append(client.recv(5))
    return answers


def say(client: ClientConnection, dialect: Dialect, payload: bytes) -> None:
    client.send(payload if dialect.binary else payload.decode())


def hear(client: ClientConnection, *wanted: bytes) -> bytes:
    """What it hears until all that is wanted was among it."""
    heard = b""
    while not all(part in heard for part in wanted):
        message = client.recv(5)
        heard += message.encode() if isinstance(message, str) else message
    return heard


def ask(connection: socket.socket, method: str, body: str) -> bytes:
    """Asks the HTTP API and returns the body of the answer, which must be a good one."""
    connection.sendall(centrifuge.api_request(connection.getpeername()[1], method, body.encode()))
    with connection.makefile("rb") as answer:
        assert b" 200 " in answer.readline()
        headers = dict(line.lower().split(b": ", 1) for line in iter(answer.readline, b"\r\n"))
        return answer.read(int(headers[b"content-length"]))


def test_beaconfire_serves_every_capability() -> None:
    """In both codecs: greetings, a publish that is acknowledged and heard, its own too; the API; and recovery."""
    with PEERS["beaconfire"].start() as running, socket.create_connection(("127.0.0.1", running.port), 5) as api:
        for codec, dialect in DIALECTS.items():
            address = f"ws://127.0.0.1:{running.port}{dialect.path}"
            with connect(address, compression=None) as one, connect(address, compression=None) as two:
                greet(one, dialect, dialect.greetings("ann", ["room"]))
                greet(two, dialect, dialect.greetings("bob", ["room"]))
                say(one, dialect, dialect.publish("room", MARK))
                assert hear(one, dialect.ack, MARK.encode()).count(dialect.ack) == 1
                assert dialect.ack not in hear(two, MARK.encode())
            ask(api, "publish", f'{{"channel":"log:{codec}","data":"before"}}')
            position = centrifuge.position(ask(api, "history", f'{{"channel":"log:{codec}"}}'))
            assert position.offset == 1
            ask(api, "publish", f'{{"channel":"log:{codec}","data":"{MARK}"}}')
            with connect(address, compression=None) as late:
                answer = greet(late, dialect, dialect.recover_greetings("eve", f"log:{codec}", position))[-1]
                recovered = answer.encode() if isinstance(answer, str) else answer
                assert (recovered.count(MARK.encode()), recovered.count(b"before")) == (1, 0)
        assert running.cpu_s() > 0
        assert running.resident_bytes() > 1 << 20


def test_the_loop_passes_on_what_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greetings are answered by an empty frame each; messages of any size reach all others, in order, also cut ones."""
    monkeypatch.setattr("websockets.client.generate_key", lambda: HANDSHAKE_KEY)
    peer = PEERS["c-loop"]
    dialect = peer.dialects["text"]
    with peer.start() as running:
        address = f"ws://127.0.0.1:{running.port}{dialect.path}"
        with connect(address, compression=None) as one, connect(address, compression=None) as two:
            assert greet(one, dialect, dialect.greetings("ann", ["room"])) == [""]
            assert greet(two, dialect, dialect.greetings("bob", ["room"])) == [""]
            for filling in (0, 100, 109, 30_000):
                say(one, dialect, dialect.publish("room", MARK + "x" * filling))
            assert [len(two.recv(5)) for _ in range(4)] == [17, 117, 126, 30_017]
            one.socket.sendall(b"\x81\x83")  # a frame of three bytes, in two pieces
            assert greet(two, dialect, [b"hello"]) == [""]  # by which time the first piece has been read
            one.socket.sendall(bytes(4) + b"~ab")
            assert two.recv(5) == "~ab"
            assert greet(one, dialect, [b"hello"]) == [""]  # and nothing of its own before
