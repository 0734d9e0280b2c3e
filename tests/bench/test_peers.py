"""The peers of the benchmark: their protocols, their pinned versions, and two of them as real servers."""

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
from bench.peers.base import CAPABILITIES, PeerProtocol, Running, pinned_version
from bench.peers.c_loop import LoopProtocol
from bench.peers.centrifuge import PROTOCOLS, Position
from bench.peers.socketio import SocketIoProtocol
from bench.peers.text import TextProtocol
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
"""A program whose child has a thread that uses 50 ms of CPU time and ends. Then both processes wait."""


# --- protocols --------------------------------------------------------------------------------------------------------


def read_command(message: bytes) -> Command:
    """The only command in a message. Asserts that its length is correct."""
    length = shift = at = 0
    while True:
        length |= (message[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if message[at - 1] < 128:
            break
    assert len(message) == at + length
    return Command.FromString(message[at:])


def test_centrifuge_json_connects_with_a_token_and_subscribes() -> None:
    """Connect with a token that the configured secret verifies, then one subscribe per channel with increasing ids."""
    connecting, *subscribing = map(json.loads, PROTOCOLS["json"].setup_messages("ann", ["one", "two"]))
    claims = jwt.decode(connecting["connect"]["token"], centrifuge.SECRET, algorithms=["HS256"])
    assert (connecting["id"], claims["sub"]) == (1, "ann")
    assert claims["exp"] > time.time()
    assert subscribing == [{"id": 2, "subscribe": {"channel": "one"}}, {"id": 3, "subscribe": {"channel": "two"}}]


def test_centrifuge_protobuf_has_the_same_commands_as_json() -> None:
    """Both encodings contain the same commands. Data are the same bytes."""
    connecting, subscribing = map(read_command, PROTOCOLS["protobuf"].setup_messages("ann", ["one"]))
    assert (connecting.id, subscribing.id, subscribing.subscribe.channel) == (1, 2, "one")
    assert jwt.decode(connecting.connect.token, centrifuge.SECRET, algorithms=["HS256"])["sub"] == "ann"
    binary = read_command(PROTOCOLS["protobuf"].publish("one", MARK))
    text = json.loads(PROTOCOLS["json"].publish("one", MARK))
    assert (binary.id, binary.publish.channel) == (text["id"], text["publish"]["channel"])
    assert json.loads(binary.publish.data) == text["publish"]["data"] == MARK


@pytest.mark.parametrize("codec", PROTOCOLS)
def test_recovery_sends_a_position(codec: str) -> None:
    """The subscribe command contains epoch and offset."""
    message = PROTOCOLS[codec].recovery_messages("ann", "log:a", Position(7, "abc"))[-1]
    if codec == "json":
        asked = json.loads(message)["subscribe"]
        assert asked == {"channel": "log:a", "recover": True, "epoch": "abc", "offset": 7}
    else:
        subscribe = read_command(message).subscribe
        assert (subscribe.recover, subscribe.epoch, subscribe.offset) == (True, "abc", 7)


def test_a_length_that_looks_like_a_mark_is_refused() -> None:
    """In Protobuf a length of 126 is the byte of a mark: the load program would write the time there."""
    publish = PROTOCOLS["protobuf"].publish
    with pytest.raises(ValueError, match="another length"):
        publish("one", MARK + "x" * (126 - 2 - len(MARK)))
    assert publish("one", MARK + "x" * (125 - 2 - len(MARK))).count(b"~") == 1


def test_position_is_read_from_api_responses() -> None:
    """Offset and epoch of a result. A missing offset is 0. An error has no position."""
    assert centrifuge.read_position(b'{"result":{"publications":[],"offset":3,"epoch":"e"}}') == Position(3, "e")
    assert centrifuge.read_position(b'{"result":{"epoch":"e"}}') == Position(0, "e")
    with pytest.raises(ValueError, match="108"):
        centrifuge.read_position(b'{"error":{"code":108,"message":"not available"}}')


def test_socket_io_events_carry_the_number_of_their_acknowledgement() -> None:
    """Joining is event 0, publishing is event 1. The pattern for acknowledgements matches only the latter."""
    protocol = SocketIoProtocol()
    assert protocol.setup_messages("ann", ["one"]) == [b"40", b'420["join","one"]']
    assert protocol.publish("one", MARK) == f'421["to","one","{MARK}"]'.encode()
    assert protocol.ack not in b"430[]"


def test_text_protocol() -> None:
    """The commands are `join` and `to`."""
    assert TextProtocol().setup_messages("ann", ["one", "two"]) == [b"join one", b"join two"]
    assert TextProtocol().publish("one", MARK) == f"to one {MARK}".encode()


def test_c_loop_protocol() -> None:
    """A publication is only the data."""
    assert LoopProtocol().publish("one", MARK) == MARK.encode()
    assert LoopProtocol().setup_messages("ann", ["one"]) == [b"hello"]


@pytest.mark.parametrize("name", PEERS)
def test_publications_never_contain_the_acknowledgement(name: str) -> None:
    """A peer with acknowledgements has a pattern for them, which its publications do not contain."""
    for protocol in PEERS[name].protocols.values():
        assert bool(protocol.ack) == ("acks" in PEERS[name].capabilities)
        assert not protocol.ack or protocol.ack not in protocol.publish("room", MARK + "x" * 64)


# --- pins and configurations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_describes_itself(name: str) -> None:
    """The capabilities are known, the configuration starts with a command, and the name is the key in PEERS."""
    peer = PEERS[name]
    assert peer.name == name
    assert peer.capabilities <= CAPABILITIES
    assert ("protobuf" in peer.capabilities) == ("protobuf" in peer.protocols)
    assert peer.configuration.startswith("$ ")
    assert name == "c-loop" or re.search(r"\d+\.\d+\.\d+|\d+\.\d+", peer.title)


def normal(table: dict[str, Any]) -> dict[str, Any]:
    """Options of Beaconfire with the values in the notation of Centrifugo."""
    return {name: {"1h": "3600s", "16MB": 16_000_000}.get(value, value) for name, value in table.items()}


def test_both_centrifuge_servers_are_configured_alike() -> None:
    """The same secret and key, the same limits, and the same channel options."""
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
    """Requirements have exact versions, packages have exact versions and hashes, and no file contains URLs."""
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
    """A version is found by the complete name of its package, in each kind of file."""
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
    """The state of a process as the kernel's letter; Z or empty after its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_program_is_measured_and_ended_with_its_children() -> None:
    """CPU time of a child's thread that has ended counts. The memory of both processes counts. Both are ended."""
    with Program([sys.executable, "-c", BURN]) as program:
        assert program.read_line() == "burnt"
        parent, child = program.pids()
        assert program.cpu_s() >= 0.05
        assert program.resident_bytes() > 2 << 20
    assert (state(parent), state(child) in "Z") == ("", True)
    assert (program.pids(), program.cpu_s(), program.resident_bytes()) == ([], 0, 0)


def test_a_held_port_is_reserved() -> None:
    """Programs that ask for any port never get it. A server with this number can listen, several times."""
    with HeldPort() as held:
        for _ in range(2):
            with socket.create_server(("127.0.0.1", held.number)):
                socket.create_connection(("127.0.0.1", held.number), 5).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", held.number), 5)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", held.number))


def test_a_peer_that_does_not_start_is_ended() -> None:
    """All its parts are ended, including those that have started."""
    running = Running()
    listen = f"import socket; s = socket.create_server(('127.0.0.1', {running.port})); s.accept(); input()"
    running.launch([sys.executable, "-c", listen + "; s.accept()"], part="first")
    with pytest.raises(RuntimeError, match="did not start"):
        running.launch([sys.executable, "-c", ""], port=1)
    assert running.cpu_s_by_part() == {"first": 0, "server": 0}


# --- two peers as real servers --------------------------------------------------------------------------------------


def set_up(client: ClientConnection, protocol: PeerProtocol, setup_messages: list[bytes]) -> list[str | bytes]:
    """Sends each setup message and returns the replies."""
    replies = []
    for message in setup_messages:
        send(client, protocol, message)
        replies.append(client.recv(5))
    return replies


def send(client: ClientConnection, protocol: PeerProtocol, payload: bytes) -> None:
    client.send(payload if protocol.binary else payload.decode())


def receive(client: ClientConnection, *wanted: bytes) -> bytes:
    """The received bytes until they contain all of `wanted`."""
    received = b""
    while not all(part in received for part in wanted):
        message = client.recv(5)
        received += message.encode() if isinstance(message, str) else message
    return received


def call_api(connection: socket.socket, method: str, body: str) -> bytes:
    """Calls the HTTP API and returns the response body. Asserts that the call succeeds."""
    connection.sendall(centrifuge.api_request(connection.getpeername()[1], method, body.encode()))
    with connection.makefile("rb") as answer:
        assert b" 200 " in answer.readline()
        headers = dict(line.lower().split(b": ", 1) for line in iter(answer.readline, b"\r\n"))
        return answer.read(int(headers[b"content-length"]))


def test_beaconfire_serves_every_capability() -> None:
    """In both encodings: connecting, a publish that is acknowledged and delivered to all, the API, recovery."""
    with PEERS["beaconfire"].start() as running, socket.create_connection(("127.0.0.1", running.port), 5) as api:
        for codec, protocol in PROTOCOLS.items():
            address = f"ws://127.0.0.1:{running.port}{protocol.path}"
            with connect(address, compression=None) as one, connect(address, compression=None) as two:
                set_up(one, protocol, protocol.setup_messages("ann", ["room"]))
                set_up(two, protocol, protocol.setup_messages("bob", ["room"]))
                send(one, protocol, protocol.publish("room", MARK))
                assert receive(one, protocol.ack, MARK.encode()).count(protocol.ack) == 1
                assert protocol.ack not in receive(two, MARK.encode())
            call_api(api, "publish", f'{{"channel":"log:{codec}","data":"before"}}')
            position = centrifuge.read_position(call_api(api, "history", f'{{"channel":"log:{codec}"}}'))
            assert position.offset == 1
            call_api(api, "publish", f'{{"channel":"log:{codec}","data":"{MARK}"}}')
            with connect(address, compression=None) as late:
                answer = set_up(late, protocol, protocol.recovery_messages("eve", f"log:{codec}", position))[-1]
                recovered = answer.encode() if isinstance(answer, str) else answer
                assert (recovered.count(MARK.encode()), recovered.count(b"before")) == (1, 0)
        assert running.cpu_s() > 0
        assert running.resident_bytes() > 1 << 20


def test_workers_serve_and_are_measured_as_one_server() -> None:
    """Supervisor, hub and two workers, all of which serve when the peer has started. Each process counts."""
    with PEERS["beaconfire-2-workers"].start() as running:
        (folder,) = running.folders
        assert list(folder.glob("beaconfire-*"))
        pids = running.parts["server"].pids()
        assert len(pids) == 4
        assert running.resident_bytes() > 4 * (10 << 20)
        with socket.create_connection(("127.0.0.1", running.port), 5) as api:
            assert len(json.loads(call_api(api, "info", "{}"))["result"]["nodes"]) == 2
    assert all(state(pid) in "Z" for pid in pids)
    assert not folder.exists()


def test_the_c_loop_broadcasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setup message gets an empty frame. Messages of any size, also divided ones, reach all others in order."""
    monkeypatch.setattr("websockets.client.generate_key", lambda: HANDSHAKE_KEY)
    peer = PEERS["c-loop"]
    protocol = peer.protocols["text"]
    with peer.start() as running:
        address = f"ws://127.0.0.1:{running.port}{protocol.path}"
        with connect(address, compression=None) as one, connect(address, compression=None) as two:
            assert set_up(one, protocol, protocol.setup_messages("ann", ["room"])) == [""]
            assert set_up(two, protocol, protocol.setup_messages("bob", ["room"])) == [""]
            for filling in (0, 100, 109, 30_000):
                send(one, protocol, protocol.publish("room", MARK + "x" * filling))
            assert [len(two.recv(5)) for _ in range(4)] == [17, 117, 126, 30_017]
            one.socket.sendall(b"\x81\x83")  # a frame of three bytes, in two pieces
            assert set_up(two, protocol, [b"hello"]) == [""]  # by which time the first piece has been read
            one.socket.sendall(bytes(4) + b"~ab")
            assert two.recv(5) == "~ab"
            assert set_up(one, protocol, [b"hello"]) == [""]  # and nothing of its own before
