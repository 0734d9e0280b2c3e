"""Compressed messages over a real connection (RFC 7692; the manner of Autobahn 12 and 13)."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from beaconfire.model.events import LimitHit
from beaconfire.transports.websocket.deflate import deflate

from .peer import BINARY, CONTINUATION, HEADERS, PING, PONG, TEXT, Peer, Received, client_frame, request
from .server import MESSAGE_SIZE_LIMIT, EchoServer

COMPRESSED = 4
"""Reserved bit 1, as `client_frame` takes it."""

OFFER = "permessage-deflate; client_max_window_bits"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TOO_BIG = LimitHit("websocket.message_size_limit", "")
LONG = b"hello, world. " * 100


@pytest.fixture
def deflating(server: EchoServer) -> Iterator[Peer]:
    """A client that has agreed on compression."""
    with Peer.open(server.port, "/deflate", extensions=OFFER) as connected:
        yield connected


def compressed(opcode: int, data: bytes, level: int = 1) -> bytes:
    return client_frame(opcode, deflate(data, level), reserved=COMPRESSED)


@pytest.mark.parametrize("pieces", [1, 2])
def test_negotiation(server: EchoServer, pieces: int) -> None:
    """What the answer says, whether the request comes whole or in pieces; two headers are one list."""
    table = {
        (OFFER,): AGREED,
        ("permessage-deflate; server_max_window_bits=15",): f"{AGREED}; server_max_window_bits=12",
        ("permessage-deflate; server_max_window_bits=9", "permessage-deflate"): f"{AGREED}; server_max_window_bits=9",
        ("permessage-deflate; server_max_window_bits=8", "permessage-deflate"): AGREED,
        ("permessage-deflate; server_max_window_bits=8",): None,
        ("permessage-deflate; mystery",): None,
        ("something-else",): None,
    }
    for offers, answer in table.items():
        headers = HEADERS + tuple(("Sec-WebSocket-Extensions", offer) for offer in offers)
        with Peer(server.port) as peer:
            data = request("/deflate", headers)
            for at in range(0, len(data), len(data) // pieces + 1):
                peer.send(data[at : at + len(data) // pieces + 1])
            response = peer.response()
            assert (response.status, response.headers.get("sec-websocket-extensions")) == (101, answer)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_both_ways(deflating: Peer, opcode: int) -> None:
    """Compressed messages and others mix in either direction; each stands for itself."""
    for _ in range(3):
        deflating.send(compressed(opcode, LONG), client_frame(opcode, LONG), compressed(opcode, b"short"))
        assert deflating.message() == (True, Received(opcode, LONG))
        assert deflating.message() == (True, Received(opcode, LONG))
        assert deflating.message() == (False, Received(opcode, b"short"))
    assert deflating.exchange(compressed(opcode, b"")) == [Received(opcode, b"")]


@pytest.mark.parametrize("window_bits", [9, 10, 11, 12])
def test_small_windows(server: EchoServer, window_bits: int) -> None:
    """Who has room for no more than it asked for can read messages a hundred times as large."""
    block = os.urandom(3000)
    data = b"".join(block + LONG for _ in range(20))
    offer = f"permessage-deflate; server_max_window_bits={window_bits}"
    with Peer.open(server.port, "/deflate", extensions=offer) as peer:
        peer.send(client_frame(BINARY, data), compressed(BINARY, data))
        for _ in range(2):
            assert peer.message(window_bits) == (True, Received(BINARY, data))


@pytest.mark.parametrize("chop", [1, 7, 997])
def test_any_segmentation(deflating: Peer, chop: int) -> None:
    """However TCP divides the bytes."""
    data = compressed(TEXT, LONG) + compressed(TEXT, b"x" * 100) + client_frame(TEXT, b"y")
    for at in range(0, len(data), chop):
        deflating.send(data[at : at + chop])
    assert [deflating.message()[1].payload for _ in range(3)] == [LONG, b"x" * 100, b"y"]


@pytest.mark.parametrize("size", [1, 3, 50])
def test_fragments(deflating: Peer, size: int) -> None:
    """Only the first carries the bit; text is checked across them, and pings come in between."""
    text = "ÄÖÜ 水 " * 40
    payload = deflate(text.encode(), 9)
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    deflating.send(client_frame(TEXT, pieces[0], final=False, reserved=COMPRESSED))
    deflating.send(*(client_frame(CONTINUATION, piece, final=False) for piece in pieces[1:]))
    deflating.send(client_frame(PING, b"still here"), client_frame(CONTINUATION))
    assert deflating.message() == (False, Received(PONG, b"still here"))
    assert deflating.message() == (True, Received(TEXT, text.encode()))
    assert deflating.exchange(client_frame(TEXT, b"on")) == [Received(TEXT, b"on")]


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, 8])
@pytest.mark.parametrize("reserved", [1, 2, 3, 5, 6, 7])
def test_other_reserved_bits(server: EchoServer, opcode: int, reserved: int) -> None:
    """What nobody agreed on is as wrong as ever, beside the bit of compression too."""
    with Peer.open(server.port, "/deflate", extensions=OFFER) as peer:
        assert peer.verdict(client_frame(opcode, deflate(b"x", 1), reserved=reserved)) == ([], 1002)


@pytest.mark.parametrize("opcode", [PING, PONG, 8, CONTINUATION])
def test_only_a_first_frame_of_data_is_compressed(server: EchoServer, opcode: int) -> None:
    """Control frames and further fragments must not say so (sections 6 and 6.1)."""
    begin = client_frame(TEXT, b"\x00", final=False) if opcode == CONTINUATION else b""
    with Peer.open(server.port, "/deflate", extensions=OFFER) as peer:
        assert peer.verdict(begin, client_frame(opcode, b"\x03\xe8", reserved=COMPRESSED)) == ([], 1002)


@pytest.mark.parametrize("extensions", ["", "permessage-deflate; mystery"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_without_agreement(server: EchoServer, extensions: str, opcode: int) -> None:
    """Who offered nothing, or nothing that could be taken up, gets nothing compressed and may not send it."""
    with Peer.open(server.port, "/deflate", extensions=extensions) as peer:
        peer.send(client_frame(opcode, LONG))
        assert peer.message() == (False, Received(opcode, LONG))
        assert peer.verdict(compressed(opcode, LONG)) == ([], 1002)


@pytest.mark.parametrize("behind", [b"", client_frame(PING, b"")])
def test_garbage(server: EchoServer, behind: bytes) -> None:
    """What cannot be inflated, and what inflates to text that is none: 1007. For either reader of the server."""
    for payload in (b"\xff\xff", b"", deflate(LONG, 1)[:-5], deflate(b"\xff", 1)):
        with Peer.open(server.port, "/deflate", extensions=OFFER) as peer:
            assert peer.verdict(client_frame(TEXT, payload, reserved=COMPRESSED), behind) == ([], 1007)


def test_as_large_as_the_limit(server: EchoServer, deflating: Peer) -> None:
    """Exactly the limit passes, however it compresses; a byte more does not, compressed or not."""
    whole = b"x" * MESSAGE_SIZE_LIMIT
    deflating.send(compressed(BINARY, whole), client_frame(BINARY, whole), compressed(BINARY, whole, 0))
    for _ in range(3):
        assert len(deflating.message()[1].payload) == MESSAGE_SIZE_LIMIT
    half = deflate(whole + b"x", 1)
    cut = len(half) // 2
    fragments = client_frame(BINARY, half[:cut], final=False, reserved=COMPRESSED) + client_frame(
        CONTINUATION, half[cut:]
    )
    for message in (compressed(BINARY, whole + b"x"), client_frame(BINARY, whole + b"x"), fragments):
        server.events.clear()
        with Peer.open(server.port, "/deflate", extensions=OFFER) as peer:
            assert peer.verdict(message) == ([], 1009)
        assert server.events == [TOO_BIG]


def test_bomb(server: EchoServer) -> None:
    """1,000 to 1, 300 MB of it, in a frame or in fragments: 1009, counted."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(300)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(bomb) < MESSAGE_SIZE_LIMIT // 3
    first = client_frame(BINARY, bomb[:1000], final=False, reserved=COMPRESSED)
    for frames in (client_frame(BINARY, bomb, reserved=COMPRESSED), first + client_frame(CONTINUATION, bomb[1000:])):
        server.events.clear()
        with Peer.open(server.port, "/deflate", extensions=OFFER) as peer:
            assert peer.verdict(frames) == ([], 1009)
        assert server.events == [TOO_BIG]


@pytest.mark.parametrize(
    "factory",
    [
        None,
        ClientPerMessageDeflateFactory(),
        ClientPerMessageDeflateFactory(server_max_window_bits=12, client_max_window_bits=9),
        ClientPerMessageDeflateFactory(server_max_window_bits=9),
        ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
        ClientPerMessageDeflateFactory(server_max_window_bits=15, client_max_window_bits=15),
    ],
)
def test_a_client_library(server: EchoServer, factory: ClientPerMessageDeflateFactory | None) -> None:
    """`websockets` with its own offer and with others: it understands us, and we understand it."""
    extensions = [factory] if factory else None
    with connect(
        f"ws://127.0.0.1:{server.port}/deflate", extensions=extensions, compression=None if factory else "deflate"
    ) as client:
        assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
        for message in ("", "short", "ÄÖÜ " * 100, LONG * 50, LONG, b"\x00" * 300_000):
            client.send(message)
            assert client.recv() == message
        client.send(["in ", "many ", "pieces" * 1000])
        assert client.recv() == "in many " + "pieces" * 1000
